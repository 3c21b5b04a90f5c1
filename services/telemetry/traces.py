"""Epochs as spans of OpenTelemetry, one each, sent by a thread of its own. Imports opentelemetry, inside functions.

A span that cannot be sent is lost; the loop never waits for it.
"""

from __future__ import annotations

import threading
from typing import Any

from services.predictor.epoch_trace import EpochTrace
from services.predictor.ports import Refused
from services.settings import Settings

SEND_EVERY_MS = 1000
MOST_WAITING = 8192
"""Spans that wait to be sent; later ones are lost."""
PATIENCE_S = 2
"""For one request, and at the end for all that waits."""


def check(settings: Settings) -> None:
    """Raises Refused when traces are asked for and what sends them is not installed."""
    if settings.telemetry.traces is None:
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as error:
        raise Refused(
            f"telemetry.traces: sending traces needs {error.name}, which is not installed here. "
            "pip install 'streamrnn[traces]', or set it to null"
        ) from None


class Traces:
    """Of one life of a shard. Call `epoch` for each, and `close` at the end. Raises Refused as `check` does."""

    def __init__(self, settings: Settings, shard: int, incarnation: int) -> None:
        check(settings)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

        told = settings.telemetry
        who: dict[str, Any] = {
            "service.name": "streamrnn",
            "service.instance.id": f"{settings.pipeline}-{shard}-{incarnation}",
            "streamrnn.pipeline": settings.pipeline,
            "streamrnn.shard": shard,
            "streamrnn.incarnation": incarnation,
        }
        self._always = {
            "messaging.system": "kafka",
            "messaging.destination.name": settings.topics.readings,
            "messaging.consumer.group.name": settings.group,
            "streamrnn.shard": shard,
            "streamrnn.incarnation": incarnation,
        }
        sampler = TraceIdRatioBased(told.traces_share)
        self._provider = TracerProvider(sampler=sampler, resource=Resource.create(who), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=told.traces, timeout=PATIENCE_S)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=MOST_WAITING, schedule_delay_millis=SEND_EVERY_MS)
        )
        self._tracer = self._provider.get_tracer("streamrnn")

    def epoch(self, traced: EpochTrace) -> None:
        """One span, from the poll of its readings, or where that was another epoch's, to its end."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        began_ns = min((began for _, began, _ in traced.phases), default=None)
        span: Any = self._tracer.start_span("epoch", kind=SpanKind.CONSUMER, start_time=began_ns)
        if not span.is_recording():
            return
        outcome = "kept" if traced.kept else "dropped"
        span.set_attributes(
            {
                **self._always,
                "messaging.batch.message_count": traced.readings + traced.rejected,
                "streamrnn.epoch": traced.epoch,
                "streamrnn.model": traced.model,
                "streamrnn.outcome": outcome,
                "streamrnn.readings": traced.readings,
                "streamrnn.predictions": traced.predictions,
                "streamrnn.rejected": traced.rejected,
                "streamrnn.partitions": list(traced.position),
                "streamrnn.position": list(traced.position.values()),
                **_seconds(traced),
            }
        )
        for phase, began, ended in traced.phases:
            span.add_event(phase, {"seconds": (ended - began) / 1e9}, timestamp=ended)
        if not traced.kept:
            span.set_status(Status(StatusCode.ERROR, "nothing of the epoch happened; its readings are polled again"))
        span.end(max((ended for _, _, ended in traced.phases), default=None))

    def close(self) -> None:
        """Sends what waits, or gives up after a moment."""
        last = threading.Thread(target=self._provider.shutdown, name="last-traces", daemon=True)
        last.start()
        last.join(PATIENCE_S)


def _seconds(traced: EpochTrace) -> dict[str, float]:
    """Attribute -> seconds of each phase; encode is two stretches of time."""
    found: dict[str, float] = {}
    for phase, began, ended in traced.phases:
        name = f"streamrnn.{phase}_seconds"
        found[name] = found.get(name, 0.0) + (ended - began) / 1e9
    return found
