"""Every compression is unpacked up to a bound and not beyond, in memory that the bound bounds."""

import gzip
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import codec

from services.brokers.kafka_unpack import TooLarge, unpack

PACK = {1: codec.gzip_encode, 2: codec.snappy_encode, 3: codec.lz4_encode, 4: codec.zstd_encode}


@given(st.binary(max_size=300) | st.integers(0, 200_000).map(bytes), st.sampled_from(sorted(PACK)))
def test_what_fits_comes_back_and_one_byte_more_does_not(data: bytes, kind: int) -> None:
    packed = PACK[kind](data)
    assert unpack(kind, packed, len(data)) == data == unpack(kind, packed, len(data) + 100)
    if data:
        with pytest.raises(TooLarge):
            unpack(kind, packed, len(data) - 1)


def test_bodies_in_several_members_and_without_blocks_are_read() -> None:
    assert unpack(1, gzip.compress(b"one") + gzip.compress(b"two") + bytes(3), 6) == b"onetwo"
    assert unpack(2, codec.snappy.compress(b"plain"), 5) == b"plain"
    assert unpack(4, codec.zstd_encode(b"one") + codec.zstd_encode(b"two"), 6) == b"onetwo"
    for kind, packed in ((1, gzip.compress(b"one") + gzip.compress(b"two")), (4, codec.zstd_encode(b"onetwo"))):
        with pytest.raises(TooLarge):
            unpack(kind, packed, 5)


def test_members_that_hold_nothing_cost_no_seconds() -> None:
    """A batch of a megabyte may have 50,000 of them, and what is left of it is copied for each."""
    assert unpack(1, gzip.compress(b"") * 999 + gzip.compress(b"one"), 3) == b"one"
    with pytest.raises(ValueError, match="more than 1000 gzip members"):
        unpack(1, gzip.compress(b"") * 1001, 3)


@pytest.mark.parametrize("kind", PACK)
def test_what_is_cut_off_is_refused(kind: int) -> None:
    packed = PACK[kind](bytes(range(256)) * 40)
    if kind == 4:  # gives what there is; that records are missing shows when they are read
        assert len(unpack(kind, packed[: len(packed) // 2], 1 << 20)) < 256 * 40
        return
    with pytest.raises(Exception) as error:  # noqa: PT011 -- each codec has errors of its own
        unpack(kind, packed[: len(packed) // 2], 1 << 20)
    assert not isinstance(error.value, TooLarge | MemoryError)


BOMB = """
import resource, sys
from services.brokers.kafka_unpack import TooLarge, unpack
body = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack(int(sys.argv[1]), body, 16 << 20)
except TooLarge:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_takes_no_more_memory_than_the_bound(kind: int) -> None:
    body = PACK[kind](bytes(400 << 20))
    done = subprocess.run([sys.executable, "-c", BOMB, str(kind)], input=body, capture_output=True, check=True)
    assert int(done.stdout) < 100 << 10, "KiB, for 16 MiB of 400"
