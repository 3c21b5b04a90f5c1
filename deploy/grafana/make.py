"""Writes the dashboards: `python -m deploy.grafana.make [FOLDER]`; without a folder into deploy/grafana/dashboards.

The JSON is checked in, because Grafana and the chart read it; `make check` fails when it is not what this code makes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.devices import devices
from deploy.grafana.overview import overview
from deploy.grafana.pipeline import pipeline
from deploy.grafana.quality import quality
from deploy.grafana.streams import streams

BOARDS: dict[str, Callable[[], Dashboard]] = {
    "overview": overview,
    "pipeline": pipeline,
    "quality": quality,
    "streams": streams,
    "ray": devices,
}


def write(folder: Path) -> None:
    """A file NAME.json for each dashboard. Panels are numbered, so that links to one of them stay good."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in BOARDS.items():
        board = made().build()
        for number, panel in enumerate(board.panels or [], 1):
            panel.id_val = number
        text = json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True)
        (folder / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards")
