"""However many keys are written, a shard holds so many streams and no more, and numbers are used again."""

import json

import pyarrow as pa

from rnn.config import ModelConfig
from rnn.nn.network import Network
from services.driver import START_MS, StreamDriver
from services.records import Flag, Reason, Role

TTL_MS = 60_000


def driver(most: int, partitions: int = 1, ttl_ms: int | None = None) -> StreamDriver:
    return StreamDriver(
        Network(ModelConfig(("flow",), hidden=4)), partitions, slots=16, max_streams=most, ttl_ms=ttl_ms
    )


def test_new_streams_beyond_the_cap_are_dead_letters_and_those_that_are_known_go_on() -> None:
    crowd = driver(3, partitions=2)
    for n in range(8):
        crowd.send(f"random-{n}", START_MS + n, [1.0], partition=0)
    crowd.send_record(b"random-0", b"not a reading", partition=0)
    crowd.send("random-1", START_MS + 9, [2.0], partition=0)
    crowd.send("elsewhere", START_MS, [1.0], partition=1)
    crowd.run()
    crowd.send("random-0", START_MS + 10, [3.0], partition=0)
    crowd.send("random-9", START_MS + 10, [3.0], partition=0)
    crowd.run()
    assert [one.stream for one in crowd.predictions() if one.partition == 0] == [
        "random-0", "random-1", "random-2", "random-1", "random-0",
    ]  # fmt: skip
    assert len(crowd.predictions("elsewhere")) == 1
    letters = crowd.dead_letters()
    assert [letter.reason for letter in letters] == [
        *[Reason.TOO_MANY_STREAMS] * 5, Reason.NOT_JSON, Reason.TOO_MANY_STREAMS,
    ]  # fmt: skip
    assert letters[0].key == b"random-3" and json.loads(letters[0].value)["at"] == START_MS + 3
    assert b"state.max_streams" in letters[0].headers["__connect.errors.exception.message"]
    assert crowd.shard.stats.streams_used == 1.0


def test_a_packed_record_with_a_stream_too_many_is_refused_whole() -> None:
    crowd = driver(2)
    batch = pa.record_batch({"stream": pa.array(["a", "b", "c"]), "at": pa.array([1, 2, 3]),
                             "flow": pa.array([1.0, 2.0, 3.0])})  # fmt: skip
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    crowd.send_record(None, sink.getvalue().to_pybytes())
    crowd.send("d", START_MS, [1.0])
    crowd.run()
    assert [letter.reason for letter in crowd.dead_letters()] == [Reason.TOO_MANY_STREAMS]
    assert len(crowd.predictions("d")) == 1 and crowd.shard.store.known == 1


def test_memory_does_not_grow_with_keys_that_are_used_once() -> None:
    crowd, n = driver(2_000, ttl_ms=TTL_MS), 0
    for _ in range(12):
        for _ in range(500):
            crowd.send(f"random-{(n := n + 1)}", crowd.now_ms, [1.0])
        crowd.run()
        crowd.advance(TTL_MS // 2)
    assert crowd.dead_letters() == [], "as silent ones make room"
    assert crowd.shard.store.capacity <= 2_048 and crowd.shard.store.known <= 2_000
    crowd.crash()
    store = crowd.restart().store
    assert len(crowd.broker.records(Role.CHANGELOG, 0)) > 6_000, "rows and tombstones"
    assert store.capacity <= 2_048 and store.known == store.live <= 2_000
    crowd.send("random-1", crowd.now_ms, [1.0])
    crowd.run()
    assert Flag.NEW in crowd.predictions("random-1")[-1].flags


def test_stamps_of_a_far_future_do_not_fill_a_partition_for_ever() -> None:
    crowd = driver(3, ttl_ms=TTL_MS)
    for n in range(3):
        crowd.broker.append(
            Role.READINGS, 0, b"junk-%d" % n, b'{"at": 1700000000000, "x": [1.0]}', timestamp_ms=1 << 50
        )
    crowd.run()
    for _ in range(6):
        crowd.advance(TTL_MS)
        crowd.send("pump-1", crowd.now_ms, [1.0])
        crowd.run()
    assert crowd.predictions("pump-1"), crowd.dead_letters()
