"""What one poll gives, and how much of it an epoch takes: readings and time are bounded, records are not."""

import numpy as np
import pyarrow as pa

from rnn.config import ModelConfig
from rnn.nn.network import Network
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.driver import StreamDriver
from services.predictor.pace import FIRST, Pace
from services.records import Records

CONFIG = ModelConfig(("flow",), (), "lstm", 4, 1, "gaussian")


def packed(rows: int, at_ms: int = 0) -> bytes:
    """One packed record of one stream."""
    columns = {"at": pa.array(at_ms + 1000 * np.arange(rows)), "flow": pa.array(np.ones(rows, np.float32))}
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for begin in range(0, rows, 40):
            writer.write_batch(batch.slice(begin, 40))
    value: bytes = sink.getvalue().to_pybytes()
    return value


def epochs_of(driver: StreamDriver) -> list[int]:
    """Readings of each epoch until all is read."""
    shard = driver.restart()
    found = []
    while any(shard.source.lag().values()):
        before = shard.stats.readings
        assert shard.turn()
        found.append(shard.stats.readings - before)
    return found


def test_an_epoch_has_no_more_readings_than_asked_for_however_they_are_packed() -> None:
    driver = StreamDriver(Network(CONFIG), partitions=2, slots=128, max_readings=100)
    for record, rows in enumerate((60, 30, 30, 100, 1, 1, 128)):
        driver.send_record(b"pump-1", packed(rows, 1_000_000 * record), partition=0)
    for step in range(150):
        driver.send("valve-1", 1000 * step, [1.0], partition=1)
    epochs = epochs_of(driver)
    assert sum(epochs) == 222 + 150 and max(epochs) <= 100
    assert len(driver.dead_letters()) == 1, "128 rows are more than an epoch may have"
    assert len(driver.predictions("pump-1")) == 222 and len(driver.predictions("valve-1")) == 150


def test_what_waits_for_the_next_epoch_counts_as_lag_and_is_forgotten_when_the_source_goes_back() -> None:
    driver = StreamDriver(Network(CONFIG), slots=64, max_readings=64)
    for record in range(4):
        driver.send_record(b"pump-1", packed(50, 1_000_000 * record))
    shard = driver.restart()
    shard.turn()
    assert dict(shard.source.lag()) == {0: 3}
    shard.source.seek({0: 1})
    assert [records.offsets.tolist() for records in shard.source.poll(64, 0.0)] == [[1]]


def test_records_are_weighed_by_the_readings_that_they_hold() -> None:
    decoder = ReadingDecoder(Schema(("flow",), ()), max_rows=100)
    values = [packed(1), packed(90), packed(5000), packed(90)[:300], b"\xff\xff\xff\xff", b"\xff", b"{}", b"", None]
    none = np.zeros(len(values), np.int64)
    weights = decoder.weigh(Records(0, np.arange(len(values)), none, [b"pump-1"] * len(values), values))
    assert weights.tolist() == [1, 90, 101, 40, 1, 1, 1, 1, 1]


def test_an_actor_says_that_it_gets_on_between_the_waves_of_one_packed_record() -> None:
    driver = StreamDriver(Network(CONFIG), slots=1000, max_readings=1000)
    driver.send_record(b"pump-1", packed(1000))
    shard = driver.restart()
    before = shard.stats.beats
    assert shard.turn() == 1
    assert shard.stats.epochs["kept"] == 1 and shard.stats.beats - before > 1000


def test_epochs_become_shorter_when_they_take_long_and_longer_again() -> None:
    pace = Pace(1_000_000, within_s=5.0)
    assert pace.readings == FIRST
    pace.took(10_000, 0.5)
    assert pace.readings == 20_000
    pace.took(20_000, 50.0)
    assert pace.readings == 2_000
    pace.took(3, 0.01)
    assert pace.readings == 2_000, "a short epoch says nothing of a long one"
    pace.took(10_000, 60.0)
    assert pace.readings == 833
    pace.took(1, 600.0)
    assert pace.readings == 1
    for _ in range(40):
        pace.took(pace.readings, 0.1)
    assert pace.readings == 1_000_000
