"""`streamrnn replay` beside `streamrnn serve`, on real Kafka: a table goes in, and what is said of it is shown."""

from __future__ import annotations

import json
from pathlib import Path

from serving import Serving, streamrnn, write_config

from services.brokers.devbroker import DevBroker

CONFIG = """
model: {task: many-to-one, predicts: now, hidden: 16}
data: {file: t.csv, test: t.csv, text: text, label: mood}
recipe: {updates: 150, least_passes: 12, sequences: 32, patience: 1000}
out: model
"""


def test_a_table_is_written_as_its_sensors_would_and_the_answers_are_shown(broker: DevBroker, tmp_path: Path) -> None:
    pairs = [("the cat chased the mouse", "bad"), ("the mouse chased the cat", "good")] * 60
    (tmp_path / "t.csv").write_text("text,mood\n" + "".join(f"{text},{mood}\n" for text, mood in pairs))
    training = tmp_path / "train.yaml"
    training.write_text(CONFIG)
    trained = streamrnn("train", "--config", str(training))
    assert trained.returncode == 0, trained.stderr
    config = write_config(tmp_path, broker.bootstrap, tmp_path / "model", "replayed")
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    asked = ["replay", str(training), "-c", str(config), "--rate", "200"]

    unheard = streamrnn(*asked, "--first", "5", "--wait", "0.5")
    assert unheard.returncode == 1 and "is `streamrnn serve` running on replayed.readings?" in unheard.stderr

    with Serving(config) as server:
        server.ready()
        shown = streamrnn(*asked, "--first", "50", "--wait", "5")
        assert shown.returncode == 0, shown.stderr
        assert "50 readings written" in shown.stderr
        lines = shown.stdout.splitlines()
        assert len(lines) in (10, 11)  # one more where the first try's sentence is answered late
        assert sum("good" in line.split()[2] for line in lines[-10:]) == 5
        as_json = streamrnn(*asked, "--first", "5", "--json", "--wait", "5")
        assert [json.loads(line)["label"] for line in as_json.stdout.splitlines()] == ["bad"]
