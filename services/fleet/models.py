"""A shard's models, by id: fetched from the registry, checked, put into an engine. Lives in the shard's actor."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.predictor.ports import Refused, Unsettled
from services.settings import Settings

if TYPE_CHECKING:
    from services.predictor.seats import Seat
    from services.registry import Registry


class Models:
    """Where seats come from. The id "" is the folder that `model` names."""

    def __init__(self, settings: Settings, device: str) -> None:
        self._settings, self._device = settings, device

    def seat(self, model: str) -> Seat:
        """Raises Refused for a model that is damaged, missing, or cannot be served here, Unsettled while the registry
        cannot be reached.
        """
        from rnn import weights
        from rnn.card import ModelRefused
        from rnn.serving import engine_of
        from services.predictor.seats import Seat

        try:
            folder = self._folder(model)
            network, card = weights.load(folder)
            engine = engine_of(network, self._settings.state.slots, self._device)
        except (ModelRefused, ValueError) as error:
            raise Refused(f"model: {error}") from error
        return Seat(card.model, engine, self._reference(model))

    def _folder(self, model: str) -> Path:
        from services.registry import ModelUnknown, Unreachable, WrongRegistry

        if not model:
            return self._settings.model
        try:
            return self._registry.folder(model)
        except Unreachable as error:
            raise Unsettled(f"registry: {error}") from error
        except (ModelUnknown, WrongRegistry) as error:
            raise Refused(f"registry: {error}") from error

    def _reference(self, model: str) -> Any:
        from services.quality.reference import Reference
        from services.registry import ModelUnknown, Unreachable, WrongRegistry

        try:
            tree = self._registry.report(model).get("drift_reference") if model else None
            return Reference.from_tree(tree) if isinstance(tree, dict) else None
        except (ValueError, KeyError, TypeError, ModelUnknown, Unreachable, WrongRegistry):
            return None  # the first readings will do

    @cached_property
    def _registry(self) -> Registry:
        from services.registry import Registry

        return Registry(self._settings.registry or "")
