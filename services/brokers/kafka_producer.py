"""kafka-python's producer, made to outlive the loss of a coordinator: every transactional call of it ends.

When the broker of a coordinator cannot be connected, the library's `await_ready` raises where its sender expects False,
and the sender drops the request that it was about to send: it is neither in flight nor queued, nobody completes its
result, and the call waits for ever. `Client` gives the sender what it expects, so that the request stays queued and the
coordinator is looked up again. Whatever else loses a request (an exception in one of the library's callbacks is logged
and gone) is found by looking: a request that is awaited, and was in neither place for LOST_S, is Retriable.

Two private names are needed for that look; `unfit` tries them. Without them the sink's watchdog is the only end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, ClassVar

from kafka import KafkaProducer
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.producer.transaction_manager import TransactionManager

from services.predictor.ports import Retriable

log = logging.getLogger(__name__)

LOST_S = 2.0
"""How long a request may be in neither place: the sender holds one itself while it connects."""
CONNECT_MS = 1_000
"""How long the sender waits for one connection: less than LOST_S. Connecting goes on after it."""
LOOK_S = 0.25
BREATH_MS = 50


class Client(KafkaNetClient):
    """Says that a broker is not ready instead of raising."""

    def await_ready(self, node_id: Any, timeout_ms: float = CONNECT_MS) -> bool:
        """True once requests can be sent to the node, False when that is not within `timeout_ms` or CONNECT_MS."""
        try:
            return bool(super().await_ready(node_id, min(timeout_ms, CONNECT_MS)))
        except kafka_errors.KafkaConnectionError:
            self.poll(timeout_ms=BREATH_MS)  # the sender asks again at once
            return False


class Producer(KafkaProducer):
    """A KafkaProducer whose transactional calls end, and that is closed by us only.

    The library's own clean-up at garbage collection replaces the logger of every producer in the process.
    """

    DEFAULT_CONFIG: ClassVar[dict[str, Any]] = {**KafkaProducer.DEFAULT_CONFIG, "kafka_client": Client}

    def __del__(self) -> None:
        pass

    def init_transactions(self) -> None:
        """Raises KafkaTimeoutError after max_block_ms, Retriable when the request was lost."""
        if unfit():
            super().init_transactions()
        else:
            limit_s = self.config["max_block_ms"] / 1000
            self._await_result(self._transaction_manager.initialize_transactions(), limit_s)

    def send_offsets_to_transaction(self, offsets: Mapping[Any, Any], group_metadata: Any) -> None:
        """Raises Retriable when the request was lost."""
        if unfit():
            super().send_offsets_to_transaction(offsets, group_metadata)
        else:
            self._await_result(self._transaction_manager.send_offsets_to_transaction(offsets, group_metadata))

    def commit_transaction(self) -> None:
        """Raises Retriable when the request was lost. May return though nothing was committed: read back."""
        if unfit():
            super().commit_transaction()
        else:
            self._await_result(self._transaction_manager.begin_commit())

    def await_records(self, futures: Iterable[Any], timeout_s: float) -> None:
        """Returns when all are written; raises the error of the first that is not, KafkaTimeoutError for one that took
        longer than `timeout_s`, Retriable when the request that takes their partitions into the transaction was lost.
        """
        for future in futures:
            self._await(partial(_is_written, future), self._has_lost_partitions, timeout_s)

    def _await_result(self, result: Any, limit_s: float = float("inf")) -> None:
        self._sender.wakeup()
        self._await(lambda wait_s: bool(result.wait(wait_s * 1000)), self._has_lost_request, limit_s)

    def _await(self, ended: Callable[[float], bool], is_lost: Callable[[], bool], limit_s: float) -> None:
        # Counted in looks, not by the clock: a process that was stopped for a while has lost nothing.
        began_s, bound_s, lost_s = time.monotonic(), LOST_S + self.config["retry_backoff_ms"] / 1000, 0.0
        while not ended(LOOK_S):
            lost_s = lost_s + LOOK_S if is_lost() else 0.0
            if lost_s >= bound_s:
                raise Retriable(f"the client library has lost a request of the transaction {lost_s:g} s ago")
            if time.monotonic() - began_s > limit_s:
                raise kafka_errors.KafkaTimeoutError(f"no answer within {limit_s:g} s")

    def _has_lost_request(self) -> bool:
        transactions = self._transaction_manager
        return not transactions._pending_requests and not transactions.has_in_flight_transactional_request()

    def _has_lost_partitions(self) -> bool:
        transactions = self._transaction_manager
        if unfit() or transactions is None or not transactions.is_transactional():
            return False
        return bool(transactions.has_partitions_to_add()) and self._has_lost_request()


def _is_written(future: Any, wait_s: float) -> bool:
    try:
        future.get(timeout=wait_s)
    except kafka_errors.KafkaTimeoutError:
        if future.is_done:
            raise
        return False
    return True


@cache
def unfit() -> str | None:
    """Why lost requests cannot be found, or None: a request was seen in the queue of a client without a network."""
    why = _unfit()
    if why:
        log.warning("a request that the client library loses is ended by the watchdog only: %s", why)
    return why


def _unfit() -> str | None:
    try:
        transactions = TransactionManager(transactional_id="sample", transaction_timeout_ms=1000)
        queued = transactions._pending_requests
        if queued or transactions.has_in_flight_transactional_request() or transactions.has_partitions_to_add():
            return "kafka-python's transactions begin otherwise"
        result = transactions.initialize_transactions()
        if len(transactions._pending_requests) != 1 or result.wait(0) or not callable(transactions.begin_commit):
            return "kafka-python keeps the requests of a transaction elsewhere"
        handler = transactions.next_request_handler(False)
        if transactions._pending_requests or handler.result is not result:
            return "kafka-python takes the requests of a transaction otherwise"
    except Exception as error:
        return f"kafka-python has other parts: {error!r}"
    return None
