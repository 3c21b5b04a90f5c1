"""A shard's models, by id: fetched from the registry, checked, put into an engine. Lives in the shard's actor."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from services.predictor.ports import Refused, Retriable
from services.settings import Settings

if TYPE_CHECKING:
    from rnn.io.card import Card
    from services.predictor.deployed_models import DeployedModel
    from services.registry import Registry

T = TypeVar("T")

REPORT_BYTES = 64 << 20
"""More than this is not a trainer's report."""


class RegistryAway(Retriable):
    """The registry cannot be reached."""


class ModelUnfit(Refused):
    """It is the model that cannot be served here, nothing around it."""


class ModelLoader:
    """Models by id, in engines. The id "" is the folder that `model` names."""

    def __init__(self, settings: Settings, device: str) -> None:
        self._settings, self._device = settings, device

    def load(self, model: str, beside: bool = False) -> DeployedModel:
        """The model in an engine, made here; `beside`: while a loop steps in another thread.

        Raises ModelUnfit for a model that is damaged, missing, too large for this machine, or cannot be served here for
        whatever reason; RegistryAway while the registry cannot be reached and this machine has no copy.
        """
        from services.fleet.room import unforeseen

        try:
            return self._load(model, beside)
        except Retriable:
            raise
        except Refused as error:
            raise ModelUnfit(str(error)) from error
        except Exception as error:  # a model of somebody's making: what fails is the model, not the shard
            raise ModelUnfit(f"model {model or self._settings.model}: {unforeseen(error)}") from error

    def _load(self, model: str, beside: bool) -> DeployedModel:
        from rnn.io import weights
        from rnn.io.card import ModelRefused
        from rnn.serve.build import engine_of
        from services.fleet.room import adaptation, taken
        from services.predictor.deployed_models import DeployedModel

        try:
            with taken(self._card(model), self._settings, self._device):
                folder = self._folder(model)
                network, card = weights.load(folder)
                engine = engine_of(network, self._settings.state.slots, self._device, adaptation(self._settings))
                # Hazard: a step puts torch's threads to one for its time, for the whole process: two would mix that up.
                broken = [] if beside and self._settings.fleet.torch_threads > 1 else engine.check()
        except (ModelRefused, ValueError) as error:
            raise Refused(f"model: {error}") from error
        reference, calibration = self._told(folder)
        return DeployedModel(card.model, engine, reference, calibration, broken)

    def _card(self, model: str) -> Card:
        from rnn.io.card import read_card

        return self._asked(self._registry.card, model) if model else read_card(self._settings.model)

    def _folder(self, model: str) -> Path:
        return self._asked(self._registry.folder, model) if model else self._settings.model

    def _asked(self, question: Callable[[str], T], model: str) -> T:
        from services.registry import ModelUnknown, Unreachable, WrongRegistry

        try:
            return question(model)
        except Unreachable as error:
            raise RegistryAway(f"registry: {error}") from error
        except (ModelUnknown, WrongRegistry) as error:
            raise Refused(f"registry: {error}") from error

    def _told(self, folder: Path) -> tuple[Any, Any]:
        """What its trainer has said of its data and of its scores; None where it has not, or not so that it is read."""
        from services.predictor.score_calibration import Calibration
        from services.quality.reference import Reference

        report, found = folder / "report.json", list[Any]()
        for key, read in (("drift_reference", Reference.from_tree), ("surprise", Calibration.from_tree)):
            try:
                small = report.stat().st_size <= REPORT_BYTES
                found.append(read(json.loads(report.read_bytes())[key]) if small else None)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                found.append(None)
        return found[0], found[1]

    @cached_property
    def _registry(self) -> Registry:
        from services.registry import Registry

        return Registry(self._settings.registry or "")
