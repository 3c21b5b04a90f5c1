"""Settings of how models change under live readings: contests between them, and retraining. A part of the tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from services.redaction import masked

CLOSED = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)


class Section(BaseModel):
    """A closed group of settings: unknown keys are errors, values never change."""

    model_config = CLOSED

    def __repr_args__(self) -> Any:
        """What can hold a credential is masked, also where a section is printed."""
        return [(name, masked(str(name), value)) for name, value in super().__repr_args__()]


NICENESS = 10
"""Of a training's processes: whoever serves on the same machine comes first, but they do end."""


class RolloutSettings(Section):
    """With `registry`: how a challenger becomes the champion, and how one that disappoints goes."""

    automatic: bool = Field(
        True,
        description="Promote, reject and roll back by the numbers. false: challengers run and are measured; "
        "`streamrnn models promote` decides.",
    )
    margin: float = Field(
        0.02, ge=0, lt=1, description="Share of the champion's loss that a challenger must save to be promoted."
    )
    error_rate: float = Field(
        0.05, gt=0, lt=0.5, description="Probability, at most, of promoting a challenger that saves less than `margin`."
    )
    least_readings: int = Field(
        10_000, ge=1, description="Scored readings before a challenger is promoted, however good it looks."
    )
    most_readings: int = Field(
        10_000_000, ge=1, description="Scored readings after which a challenger that has shown nothing is withdrawn."
    )
    expires_h: float = Field(24.0, gt=0, description="Hours after which it is withdrawn in any case.")
    shadow: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of the streams that a challenger on trial follows, chosen by their names: so much of a "
        "step's time a trial costs. A shard of few streams gives it all of them.",
    )
    join_h: float = Field(
        0.25,
        ge=0,
        description="With `shadow` below 1: hours for which a challenger that has won follows all streams, so that it "
        "knows them when it takes over. 0: the others' latest readings (`state.recent`) must do.",
    )
    watch_h: float = Field(
        1.0,
        ge=0,
        description="Hours for which the old champion goes on in shadow after a change, and takes its place again if "
        "it proves better. 0: not at all.",
    )
    canary: float = Field(1.0, gt=0, le=1, description="Share of the shards that change first. 1: all of them at once.")
    canary_h: float = Field(
        0.25, ge=0, description="Hours until the other shards follow, if nothing speaks against it."
    )


def _cron(schedule: str | None) -> str | None:
    if schedule is not None:
        from datetime import UTC, datetime

        from cronsim import CronSim, CronSimError

        try:
            CronSim(schedule, datetime.now(UTC))
        except CronSimError as error:
            raise ValueError(f"a cron expression of five fields, such as `0 3 * * *` ({error})") from None
    return schedule


def _tree(given: Any) -> Any:
    """Keys and values, where a flag gives them as JSON."""
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return given  # refused by the field, in its own words


class RetrainSettings(Section):
    """With `registry`: when a new model is trained from the readings topic, to challenge the champion."""

    cron: Annotated[str | None, AfterValidator(_cron)] = Field(
        None, description="Schedule in UTC: minute, hour, day, month, weekday, as cron has them. null: none."
    )
    on_drift: bool = Field(
        False, description="Also when what sensors send, or the loss, has drifted from what the champion learned from."
    )
    settle_h: float = Field(
        0.5,
        ge=0,
        description="Hours for which something must have drifted before a retraining begins: meanwhile readings of the "
        "new kind gather, to be learned from.",
    )
    rest_h: float = Field(6.0, ge=0, description="Hours after a retraining in which drift begins no other one.")
    last: str = Field(
        "7d",
        pattern=r"^\d+[smhd]?$",
        description="What is learned from: the latest so many readings (100000), or those of so long (48h, 7d).",
    )
    archive: str | None = Field(
        None,
        description="Folder or URL of `streamrnn archive`, where readings are that the topic has lost. null: none.",
    )
    workers: int = Field(1, ge=1, le=1024, description="Processes that train, by Ray Train.")
    recipe: Annotated[dict[str, Any], BeforeValidator(_tree)] = Field(
        default_factory=dict, description="How it is trained, over the defaults: fields of rnn.train.practice.Practice."
    )
    warm: bool = Field(
        True,
        description="Begin from the champion's weights, where that leaves readings to test on; else from new ones.",
    )
    niceness: int = Field(
        NICENESS,
        ge=0,
        le=19,
        description="Of its processes, from their first instruction on. 10 leaves the processors to those that serve, "
        "and a tenth of a core to the retraining where others want all of it; 0 gives it an equal share.",
    )
    limit_minutes: float = Field(60.0, gt=0, description="Minutes after which a retraining is ended.")
    runs: Path | None = Field(
        None, description="Folder of the runs: logs, curves, reports. null: `runs` where the server was started."
    )
