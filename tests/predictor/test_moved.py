"""Which streams go on elsewhere once there are more partitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as the_client_library_s

from services.predictor.moved import crc32, moved, murmur2


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_the_hash_is_that_of_kafka_s_producers(keys: list[bytes]) -> None:
    assert murmur2(keys).tolist() == [the_client_library_s(key) & 0x7FFFFFFF for key in keys]


@pytest.mark.parametrize("hashed", [murmur2, crc32])
def test_who_moved_follows_from_the_hash_that_explains_where_they_are(hashed: object) -> None:
    keys = [b"pump-%d" % n for n in range(500)]
    where = hashed(keys)  # type: ignore[operator]
    at = (where % 3).astype(np.int32)
    assert moved(keys, at, 3, 4).tolist() == np.flatnonzero(where % 4 != at).tolist()
    assert moved(keys, at, 3, 3).tolist() == []


def test_nothing_is_said_of_producers_with_a_way_of_their_own() -> None:
    keys = [b"pump-%d" % n for n in range(500)]
    assert moved(keys, np.zeros(500, np.int32), 3, 4).tolist() == []
    assert moved([], np.zeros(0, np.int32), 3, 4).tolist() == []
