"""A shard's models, by id: fetched from the registry, checked, put into an engine. Lives in the shard's actor."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.predictor.ports import Refused, Unsettled
from services.settings import Settings

if TYPE_CHECKING:
    from rnn.adapt import Adaptation
    from services.predictor.seats import Seat
    from services.registry import Registry


class RegistryAway(Unsettled):
    """The registry cannot be reached."""


class Models:
    """Where seats come from. The id "" is the folder that `model` names."""

    def __init__(self, settings: Settings, device: str) -> None:
        self._settings, self._device = settings, device

    def seat(self, model: str) -> Seat:
        """Raises Refused for a model that is damaged, missing, or cannot be served here; RegistryAway while the
        registry cannot be reached and this machine has no copy.
        """
        from rnn import weights
        from rnn.card import ModelRefused
        from rnn.serving import engine_of
        from services.predictor.seats import Seat

        try:
            folder = self._folder(model)
            network, card = weights.load(folder)
            engine = engine_of(network, self._settings.state.slots, self._device, self._adaptation())
        except (ModelRefused, ValueError) as error:
            raise Refused(f"model: {error}") from error
        reference, calibration = self._told(folder)
        return Seat(card.model, engine, reference, calibration)

    def _adaptation(self) -> Adaptation | None:
        from rnn.adapt import Adaptation

        state = self._settings.state
        return Adaptation(state.adapt, state.adapt_memory) if state.adapt else None

    def _folder(self, model: str) -> Path:
        from services.registry import ModelUnknown, Unreachable, WrongRegistry

        if not model:
            return self._settings.model
        try:
            return self._registry.folder(model)
        except Unreachable as error:
            raise RegistryAway(f"registry: {error}") from error
        except (ModelUnknown, WrongRegistry) as error:
            raise Refused(f"registry: {error}") from error

    def _told(self, folder: Path) -> tuple[Any, Any]:
        """What its trainer has said of its data and of its scores; None where it has not, or not so that it is read."""
        from services.predictor.tails import Calibration
        from services.quality.reference import Reference

        found: list[Any] = []
        for key, read in (("drift_reference", Reference.from_tree), ("surprise", Calibration.from_tree)):
            try:
                found.append(read(json.loads((folder / "report.json").read_bytes())[key]))
            except (OSError, ValueError, KeyError, TypeError):
                found.append(None)
        return found[0], found[1]

    @cached_property
    def _registry(self) -> Registry:
        from services.registry import Registry

        return Registry(self._settings.registry or "")
