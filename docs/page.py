"""The picture of docs/page.md, taken anew of a real service: `make docs`, or

    python docs/page.py

Household power through Kafka into the demo's first model, looked at with headless Chromium. Both are fetched once.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from binaries import chromium
from browser import opened, started

from services import datasets
from services.brokers.kafka_client import ColumnProducer
from services.cli.demo import stage
from services.cli.demo.first_model import first_model
from services.cli.demo.replay import Replay
from services.datasets.series import cache_folder

ROOT = Path(__file__).resolve().parents[1]
STREAMS, PER_S, READINGS = 8, 160.0, 40_000
WATCH_MS = 22_000


def main() -> None:
    console, cache = Console(stderr=True), cache_folder(None)
    with ExitStack() as stack:
        series = datasets.household_power(cache)
        model, _ = first_model(series, cache, lambda sentence, share: None)
        broker = stage.broker(console, stack)
        out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        replay = Replay(series.x[-READINGS:], series.at_ms[-READINGS:], STREAMS, stage.PARTITIONS)
        shown = [replay.names[0].decode()]
        settings = stage.settings(out / "page.yaml", broker.bootstrap, model, "state:\n  slots: 1024\n", shown)
        stage.create_topics(settings)
        runner = stage.serve(console, stack, settings, out / "server.log")
        producer = ColumnProducer(settings.kafka)
        stack.callback(producer.close)
        replay.start(producer, settings.topics.readings, PER_S)
        stack.callback(replay.stop)
        browser = stack.enter_context(started(chromium()))
        url = runner.server.url.removesuffix("metrics")
        with opened(browser, url, viewport={"width": 1280, "height": 900}) as seen:
            seen.page.wait_for_timeout(WATCH_MS)
            seen.page.screenshot(path=ROOT / "docs" / "page.png", full_page=True)
            if seen.complaints:
                sys.exit(f"the page complained: {seen.complaints}")


if __name__ == "__main__":
    main()
