"""A model that cannot be had is refused with a sentence, whatever is wrong with it, and memory is asked for before."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from chaos import random_model

from rnn.config import ModelConfig
from rnn.io.card import Card, read_card
from rnn.io.memory import free_bytes
from services.fleet.model_loader import ModelLoader
from services.fleet.room import Room, footprint_of, taken, want_of_room
from services.predictor.ports import Refused
from services.settings import Settings

GIB = 1 << 30


def written(root: Path, **files: object) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(content))
    return root


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return written(tmp_path / "proc", meminfo=f"MemTotal: 1 kB\nMemAvailable: {8 * GIB // 1024} kB\n")


def test_memory_is_what_the_machine_has_where_no_group_limits_it(proc: Path, tmp_path: Path) -> None:
    written(proc, self__cgroup="0::/a/b\n")
    assert free_bytes(proc, tmp_path / "none") == 8 * GIB
    written(tmp_path / "groups" / "a" / "b", **{"memory.max": "max", "memory.current": 5, "memory.stat": ""})
    assert free_bytes(proc, tmp_path / "groups") == 8 * GIB
    assert free_bytes(tmp_path / "none", tmp_path / "none") is None


def test_the_tightest_group_counts_and_cached_files_are_free(proc: Path, tmp_path: Path) -> None:
    written(proc, self__cgroup="0::/pod/container\n")
    inner, outer = tmp_path / "groups" / "pod" / "container", tmp_path / "groups" / "pod"
    written(inner, **{"memory.max": 4 * GIB, "memory.current": GIB, "memory.stat": ""})
    written(outer, **{"memory.max": 3 * GIB, "memory.current": 2 * GIB, "memory.stat": f"inactive_file {GIB}\nx 1\n"})
    assert free_bytes(proc, tmp_path / "groups") == 2 * GIB


def test_a_container_that_sees_its_group_as_the_root(proc: Path, tmp_path: Path) -> None:
    written(proc, self__cgroup="0::/\n")
    written(tmp_path / "groups", **{"memory.max": GIB, "memory.current": 0, "memory.stat": ""})
    assert free_bytes(proc, tmp_path / "groups") == GIB


def test_groups_of_the_first_version(proc: Path, tmp_path: Path) -> None:
    written(proc, self__cgroup="5:cpu,cpuacct:/x\n4:memory:/docker/abc\n")
    limits = {"memory.limit_in_bytes": 2 * GIB, "memory.usage_in_bytes": GIB, "memory.stat": "total_inactive_file 0\n"}
    written(tmp_path / "groups" / "memory", **limits)  # docker's own path is not seen inside of it
    assert free_bytes(proc, tmp_path / "groups") == GIB


def huge(**more: int) -> Card:
    return Card("abcdefabcdef", "", ModelConfig(("a", "b"), **more), 0, shapes={str(n): () for n in range(9)})


@pytest.mark.parametrize(
    ("card", "slots", "words"),
    [(huge(hidden=51_800), 8, "weights of 40 GiB"), (huge(hidden=1024), 5_000_000, "for 5,000,000 slots")],
)
def test_the_sentence_names_the_model_what_it_needs_and_what_is_there(card: Card, slots: int, words: str) -> None:
    settings = Settings(state={"slots": slots})
    need = footprint_of(card, settings, "cpu")
    assert want_of_room(card, need, Room(1 << 50), slots) == ""
    why = want_of_room(card, need, Room(9 * GIB), slots)
    assert "model abcdefabcdef needs" in why and words in why and "9 GiB are free" in why and "state.slots" in why
    on_gpu = footprint_of(card, settings, "cuda")
    assert on_gpu.gpu > on_gpu.host / 2
    assert "on the GPU" in want_of_room(card, on_gpu, Room(1 << 50, 9 * GIB), slots)


def test_who_finds_no_room_is_refused_and_lets_the_next_one_ask(tmp_path: Path) -> None:
    settings = Settings(state={"slots": 8})
    for _ in range(2):
        with pytest.raises(Refused, match="needs"), taken(huge(hidden=10**7), settings, "cpu"):
            raise AssertionError("there is room")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("it broke"), TypeError("not that"), MemoryError(), torch.OutOfMemoryError("CUDA out of memory")],
)
def test_whatever_fails_in_loading_a_model_is_a_sentence(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: bytes) -> None:
        raise error

    model = random_model(tmp_path / "model", seed=1)
    settings = Settings(model=model, state={"slots": 8})
    assert ModelLoader(settings, "cpu").load("").model == read_card(model).model
    monkeypatch.setattr(safetensors.torch, "load", broken)
    with pytest.raises(Refused, match="model"):
        ModelLoader(settings, "cpu").load("")
