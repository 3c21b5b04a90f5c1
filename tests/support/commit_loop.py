"""A program that commits numbered epochs until there are enough, and is started again by a test when it leaves.

    commit_loop.py BOOTSTRAP PIPELINE EPOCHS TIMEOUT_S SEND|BULK

Epoch n writes n predictions, state rows and one dead letter whose texts follow from n alone. An even one moves
partition 0's offset on by one, an odd one leaves it where it is. So the topics say afterwards whether an epoch was
lost, torn or written twice. SIGTERM ends it between two epochs.
"""

from __future__ import annotations

import signal
import sys
import time

from services.brokers.kafka_client import read_topic
from services.brokers.kafka_sink import KafkaSink
from services.predictor.ports import Retriable
from services.records import Commit, Encoded, Role

ROWS = 3
told: list[int] = []  # SIGTERMs


def names(pipeline: str) -> dict[Role, str]:
    """The pipeline's topics."""
    return {role: f"{pipeline}.{role.value}" for role in Role}


def texts(role: Role, epoch: int) -> list[bytes | None]:
    """What an epoch writes."""
    return [b"%b %d %d" % (role.value.encode(), epoch, row) for row in range(1 if role is Role.DEAD_LETTERS else ROWS)]


def commit_of(epoch: int) -> Commit:
    """Epoch number `epoch`."""
    now_ms = time.time_ns() // 1_000_000
    writes = []
    for role in (Role.PREDICTIONS, Role.DEAD_LETTERS, Role.CHANGELOG):
        values = texts(role, epoch)
        writes.append(Encoded(role, epoch % 2, [b"key"] * len(values), values, now_ms))
    return Commit({0: offset(epoch)}, {0: offset(epoch + 1)}, tuple(writes))


def offset(epochs: int) -> int:
    """Partition 0's, once so many epochs are kept."""
    return (epochs + 1) // 2


def run(bootstrap: str, pipeline: str, epochs: int, timeout_s: float, bulk: bool) -> None:
    """Commits until there are so many epochs."""
    options = {"bootstrap_servers": bootstrap, "bootstrap_timeout_ms": 1000, "reconnect_backoff_max_ms": 200}
    sink = KafkaSink(
        options,
        group=pipeline,
        transactional_id=f"{pipeline}-shard-0",
        topics=names(pipeline),
        partitions=(0, 1),
        timeout_s=timeout_s,
        bulk=bulk,
    )
    patiently(sink.fence)
    at = patiently(sink.committed).get(0, 0)
    letters = patiently(lambda: read_topic(options, names(pipeline)[Role.DEAD_LETTERS]))
    epoch = sum(map(len, letters.values()))  # one each
    if offset(epoch) != at:
        raise SystemExit(f"the offset is {at} after {epoch} epochs")
    say(f"starts at {epoch}")
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    while epoch < epochs and not told:
        commit = commit_of(epoch)
        try:
            sink.commit(commit)
        except Retriable as error:
            say(f"unsettled {epoch}: {error}")
            kept = patiently(lambda commit=commit: sink.settle(commit))
            say(f"settled {epoch}: {kept}")
            if not kept:
                continue
        epoch += 1
        say(f"reached {epoch}")
    sink.close()


def patiently(call):
    """The value of a call that may need the broker."""
    while True:
        try:
            return call()
        except Retriable as error:
            say(f"waits: {error}")
            if told:
                raise SystemExit("told to end while the broker is away") from error
            time.sleep(0.05)


def say(sentence: str) -> None:
    print(f"{time.monotonic():.3f} {sentence}", flush=True)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5] == "BULK")
