"""Spans of epochs, as a collector gets them. Those of a real service: test_page.py, which has one."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from otlp import Collector

from services.predictor.epoch_trace import EpochTrace
from services.predictor.ports import Refused
from services.settings import Settings
from services.telemetry.traces import Traces, check


def settings(endpoint: str | None, share: float = 1.0) -> Settings:
    return Settings(pipeline="traced", telemetry={"traces": endpoint, "traces_share": share})


def traced(epoch: int, kept: bool = True) -> EpochTrace:
    now_ns = time.time_ns()
    phases = (("poll", now_ns - 9, now_ns - 7), ("encode", now_ns - 7, now_ns - 5), ("encode", now_ns - 5, now_ns))
    return EpochTrace(epoch, "3f9a0c12be77", phases, {0: 8, 2: 9}, readings=5, predictions=5, rejected=1, kept=kept)


def test_a_dropped_epoch_is_an_error_and_phases_add_up(collector: Collector) -> None:
    traces = Traces(settings(collector.endpoint), shard=7, incarnation=2)
    traces.epoch(traced(1))
    traces.epoch(traced(2, kept=False))
    traces.close()
    mine = [span for span in collector.spans if span.resource.get("streamrnn.shard") == 7]
    assert [(span.attributes["streamrnn.outcome"], span.failed) for span in mine] == [
        ("kept", False),
        ("dropped", True),
    ]
    assert mine[0].resource["service.instance.id"] == "traced-7-2"
    assert mine[0].attributes["streamrnn.encode_seconds"] == pytest.approx(7e-9)
    assert mine[0].attributes["streamrnn.partitions"] == [0, 2]
    assert mine[0].attributes["messaging.batch.message_count"] == 6


def test_a_share_of_the_epochs_is_a_share_of_the_spans(collector: Collector) -> None:
    traces = Traces(settings(collector.endpoint, share=0.1), shard=8, incarnation=0)
    for epoch in range(1000):
        traces.epoch(traced(epoch))
    traces.close()
    assert 30 < sum(span.resource.get("streamrnn.shard") == 8 for span in collector.spans) < 250


def test_a_collector_that_is_away_costs_the_spans_and_nothing_else() -> None:
    traces = Traces(settings("http://127.0.0.1:9/v1/traces"), shard=0, incarnation=0)
    for epoch in range(100):
        traces.epoch(traced(epoch))
    traces.close()


def test_what_is_missing_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    check(settings(None))
    with pytest.raises(Refused, match=r"telemetry\.traces: .*pip install 'streamrnn\[traces\]'"):
        check(settings("http://collector:4318/v1/traces"))


def test_nothing_of_it_is_imported_where_nobody_traces() -> None:
    code = (
        "import sys, services.predictor.shard, services.telemetry.traces as t; from services.settings import Settings; "
    )
    code += "t.check(Settings()); print(any(name.startswith('opentelemetry') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("endpoint", ["collector:4318", "", "grpc://collector:4317", "http:///v1/traces"])
def test_an_endpoint_that_cannot_be_one_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="a URL such as"):
        settings(endpoint)
