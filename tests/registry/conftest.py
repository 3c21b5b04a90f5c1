"""Small real models, and registries in a folder and in an object store's clothes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.nn.network import Network
from services.registry import Registry

MakeModel = Callable[..., Path]


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        self.now_ms += 1
        return self.now_ms

    def advance(self, seconds: float) -> None:
        self.now_ms += round(1000 * seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """make_model(seed, parent=..., **fields of ModelConfig) -> folder of a model; equal arguments, equal weights."""

    def make(seed: int, parent: str | None = None, **fields: object) -> Path:
        torch.manual_seed(seed)
        config = ModelConfig(**{"features": ("a", "b"), "hidden": 8, **fields})  # type: ignore[arg-type]
        folder = tmp_path / "trained" / f"{seed}-{secrets.token_hex(3)}"
        weights.save(folder, Network(config), created_ms=1000 * seed, parent=parent, scores={"mse": 0.1 * seed})
        return folder

    return make


@pytest.fixture(params=["folder", "objects"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh place of each kind."""
    if request.param == "folder":
        yield str(tmp_path / "registry")
        return
    import fsspec

    name = f"/r{secrets.token_hex(4)}"
    yield f"memory:/{name}"
    store = fsspec.filesystem("memory")
    if store.exists(name):
        store.rm(name, recursive=True)


@pytest.fixture
def registry(where: str, tmp_path: Path, clock: Clock) -> Registry:
    return Registry(where, cache=tmp_path / "cache", clock_ms=clock)
