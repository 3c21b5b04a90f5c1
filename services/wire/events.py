"""The events topic as pydantic models: what `services.fleet.events` writes, a class for each event. Imports pydantic.

For documentation and other people's code; the tests hold it to the calls that write events.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Model = Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
"""Id of a model."""
Figures = dict[str, float | int | None]


class Event(BaseModel):
    """Something that has happened to a pipeline's models. Consumers must ignore fields that they do not know."""

    model_config = ConfigDict(extra="ignore")

    at: int = Field(ge=0, description="When it happened, in milliseconds since 1970.")


class ChampionEvent(Event):
    """Another model serves."""

    event: Literal["champion"]
    model: Model | None = Field(description="The model that serves from now on.")
    before: Model | None = Field(description="The one that served until now.")


class ChallengerEvent(Event):
    """A model begins to run in shadow."""

    event: Literal["challenger"]
    model: Model = Field(description="The model that runs in shadow.")


class JoiningEvent(Event):
    """A challenger has won its contest, and follows all streams for a while before it takes over."""

    event: Literal["joining"]
    model: str = Field(description="The challenger.")
    hours: float = Field(gt=0, description="How long it follows all streams.")
    reason: str = Field(description="Why it won, in a sentence with the numbers.")


class VerdictEvent(Event):
    """A contest between two models has ended."""

    event: Literal["verdict"]
    outcome: Literal["promoted", "rejected", "undecided", "expired", "rolled_back"] = Field(
        description="How it ended; undecided: another change came first."
    )
    model: str = Field(description="The model that was judged.")
    reason: str = Field(description="Why, in a sentence with the numbers.")
    gain: float | None = Field(default=None, description="Mean share of the champion's loss that the challenger saves.")
    gain_low: float | None = Field(default=None, description="The gain is above it, at the settings' error rate.")
    gain_high: float | None = Field(default=None, description="The gain is below it, at the settings' error rate.")
    better: float | None = Field(default=None, description="E-value for the challenger; promoted at 1 / error rate.")
    not_better: float | None = Field(default=None, description="E-value against it; rejected at 1 / error rate.")
    readings: int | None = Field(default=None, description="Readings on which both were scored.")
    rounds: int | None = Field(default=None, description="Rounds of them.")
    champion_loss: float | None = Field(default=None, description="Mean loss of the champion.")
    challenger_loss: float | None = Field(default=None, description="Mean loss of the challenger.")


class ModelRefusedEvent(Event):
    """A model of the registry could not be run; serving goes on with the one before."""

    event: Literal["model_refused"]
    model: str = Field(description="The model.")
    reason: str = Field(description="Why, in a sentence.")


class DriftEvent(Event):
    """What sensors send, or the loss, is no longer what the champion learned from."""

    event: Literal["drift"]
    name: str = Field(description="A feature, or `loss`.")
    measure: str = Field(description="What was measured of it.")
    value: float | None = Field(description="How far it is.")
    threshold: float | None = Field(description="From where on it has drifted.")


class RetrainingEvent(Event):
    """A retraining begins."""

    event: Literal["retraining"]
    reason: str = Field(description="Why, in words.")
    workers: int = Field(ge=0, description="Processes that train.")
    last: str = Field(description="What is learned from: the latest so many readings, or those of so long.")


class RetrainedEvent(Event):
    """A retraining has ended."""

    event: Literal["retrained"]
    end: Literal["trained", "failed", "timed_out", "cancelled"] = Field(description="How.")
    message: str = Field(description="What came of it, in a sentence.")
    seconds: float = Field(ge=0, description="How long it took.")
    model: str | None = Field(default=None, description="The model it gave; null for none.")
    run: str | None = Field(default=None, description="Folder of the run.")
    readings: int | None = Field(default=None, description="Readings it learned from.")
    scores: Figures | None = Field(default=None, description="What the model is worth on readings it has not seen.")


class QualityEvent(Event):
    """What the champion's forecasts are worth at present. The newest stays."""

    event: Literal["quality"]
    model: Model = Field(description="The champion.")
    steps: dict[str, Figures] = Field(description="Step of the forecast -> its figures.")


EVENTS: dict[str, type[Event]] = {
    "champion": ChampionEvent,
    "challenger": ChallengerEvent,
    "joining": JoiningEvent,
    "verdict": VerdictEvent,
    "model_refused": ModelRefusedEvent,
    "drift": DriftEvent,
    "retraining": RetrainingEvent,
    "retrained": RetrainedEvent,
    "quality": QualityEvent,
}
"""Event -> its model."""
