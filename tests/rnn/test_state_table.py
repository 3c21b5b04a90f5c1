"""The state table: rows leave and come back bit for bit, and a million streams fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rnn.config import ModelConfig
from rnn.nn import clock as clocks
from rnn.nn.cells import CELLS
from rnn.nn.network import Network
from rnn.serve.engine import Engine
from rnn.serve.state_table import StateTable


def network_of(cell: str = "lstm", hidden: int = 5, layers: int = 2) -> Network:
    torch.manual_seed(0)
    return Network(ModelConfig(("a", "b", "c"), ("b",), cell=cell, hidden=hidden, layers=layers))


@pytest.mark.parametrize("cell", CELLS)
def test_any_bytes_come_back_as_they_went_in(cell: str) -> None:
    table = StateTable(network_of(cell), 50)
    random = np.random.default_rng(0)
    slots = random.permutation(50)[:20]
    rows = random.integers(0, 256, (20, table.row_bytes), dtype=np.uint8)  # NaNs with odd payloads among them
    table.load(slots, rows)
    assert (table.rows(slots) == rows).all()
    assert (table.rows(slots[::-1]) == rows[::-1]).all()


def test_rows_go_on_in_another_table_as_if_nothing_had_happened() -> None:
    network, random = network_of(), np.random.default_rng(0)
    here, there = Engine(network, 8), Engine(network, 100)
    x = random.normal(size=(5, 8, 3)).astype(np.float32)
    slots, seq = np.arange(8), np.full(8, -1)
    for t in range(4):
        here.run(slots, x[t], np.full(8, t * 1000), seq)
    elsewhere = np.array([99, 3, 50, 7, 0, 12, 64, 1])
    there.load(elsewhere, here.rows(slots))
    here_y = here.run(slots, x[4], np.full(8, 4000), seq)
    there_y = there.run(elsewhere, x[4], np.full(8, 4000), seq)
    assert here_y.y.tobytes() == there_y.y.tobytes() and here_y.score.tobytes() == there_y.score.tobytes()
    assert (here.rows(slots) == there.rows(elsewhere)).all()


def test_a_row_is_little_endian_clock_first_without_padding() -> None:
    table = StateTable(network_of(), 4)
    assert table.row_bytes == 3 * 8 + 4 * (3 * 3 + 1 + 2) + 4 * 2 * 2 * 5
    table.clock[2] = (0x0102030405060708, 5, -1)
    table.parts["c1"][2, 4] = 1.5
    row = table.rows(np.array([2]))[0].tobytes()
    assert row[:8] == bytes.fromhex("0807060504030201") and row[16:24] == b"\xff" * 8
    assert row[-4:] == bytes.fromhex("0000c03f")


def test_clear_makes_a_stream_new() -> None:
    engine = Engine(network_of(), 4)
    fresh = engine.rows(np.arange(4))
    slots = np.array([1, 2])
    engine.run(slots, np.ones((2, 3), np.float32), np.array([1, 2]), np.array([7, 8]))
    assert (engine.rows(slots) != fresh[slots]).any()
    engine.clear(np.array([2]))
    after = engine.rows(np.arange(4))
    assert (after[[0, 2, 3]] == fresh[[0, 2, 3]]).all() and (after[1] != fresh[1]).any()
    assert (engine.table.clock[2] == clocks.INITIAL).all()


def test_rows_of_another_size_are_refused() -> None:
    table = StateTable(network_of(), 4)
    with pytest.raises(ValueError, match="layout"):
        table.load(np.array([0]), np.zeros((1, table.row_bytes - 4), np.uint8))
    with pytest.raises(ValueError, match="slots"):
        StateTable(network_of(), 0)


def test_layout_names_what_a_row_depends_on() -> None:
    layouts = {StateTable(network_of(*kind), 2).layout for kind in (("lstm", 5, 2), ("gru", 5, 2), ("lstm", 6, 2))}
    assert len(layouts) == 3
    assert StateTable(network_of(), 2).layout == StateTable(network_of(), 9).layout


def test_no_rows_are_no_bytes() -> None:
    table = StateTable(network_of(), 4)
    none = np.empty(0, np.int64)
    assert table.rows(none).shape == (0, table.row_bytes)
    table.load(none, table.rows(none))
    table.clear(none)


def test_a_million_streams_fit_in_600_mib_and_work() -> None:
    torch.manual_seed(0)
    engine = Engine(Network(ModelConfig(("a", "b", "c"), hidden=64)), 1_000_000)
    table = engine.table
    size = table.clock.nbytes + sum(part.numel() * part.element_size() for part in table.parts.values())
    assert size <= 600 * 2**20
    random = np.random.default_rng(0)
    slots = random.choice(1_000_000, 3000, replace=False)
    x, at_ms, seq = random.normal(size=(3000, 3)).astype(np.float32), np.zeros(3000, np.int64), np.full(3000, -1)
    first = engine.run(slots, x, at_ms, seq)
    second = engine.run(slots, x, at_ms + 1000, seq)
    assert np.isfinite(first.y).all() and np.isfinite(second.score).all()
    assert (second.y != first.y).any(axis=1).all()
