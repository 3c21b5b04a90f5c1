"""What compose's own settings put on the live page and the board "Streams" is what its sensors send."""

from __future__ import annotations

from pathlib import Path

import yaml

from services.settings import load
from services.settings.training import training_file
from services.tables.sets import series_of

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_spotlight_is_on_the_streams_of_the_profile_sensors() -> None:
    sensors = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["sensors"]
    assert sensors["profiles"] == ["sensors"]
    inside = next(word for word in sensors["command"] if word.endswith("sensors.yaml"))
    (file,) = [one.split(":")[0] for one in sensors["volumes"] if one.split(":")[1] == inside]
    plan = training_file(DEPLOY / file)
    assert plan.data.set is not None
    settings = load(DEPLOY / "streamrnn.yaml")
    assert list(settings.telemetry.spotlight) == [one.name for one in series_of(plan.data.set)]
