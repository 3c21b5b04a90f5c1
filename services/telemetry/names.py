"""Every metric as data: its name, kind, unit, labels, meaning, and the field of `ShardStats`, or of
`PipelineStats`, that it shows.

docs/metrics.md is made of it: `python -m services.telemetry.names > docs/metrics.md`. Imports no prometheus_client.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from services.predictor.stats import PHASES
from services.records import Flag, Reason

PREFIX = "streamrnn_"
Kind = Literal["counter", "gauge", "histogram", "info"]

REASONS = tuple(str(reason) for reason in Reason)
FLAGS = tuple(str(flag.name).lower() for flag in Flag)
OUTCOMES = ("kept", "dropped")
EVICTIONS = ("spilled", "idle")
CAUSES = ("died", "stalled")
VERDICTS = ("promoted", "rejected", "expired", "rolled_back")
RETRAININGS = ("trained", "failed", "timed_out")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `label` is what it has beside `shard`, `values` what that label can say; empty: numbers or names."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    field: str = ""  # of ShardStats; empty: made by the collector itself
    label: str = ""
    values: tuple[str, ...] = ()
    pipeline: bool = False  # of the whole pipeline: the field is one of PipelineStats, and there is no label `shard`

    def series(self) -> Iterator[str]:
        """Names under which Prometheus keeps it."""
        yield from (self.name + end for end in (("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)))


METRICS = (
    # what went through
    Metric("streamrnn_readings_total", "counter", "Readings accepted and committed.", "readings", "readings"),
    Metric("streamrnn_predictions_total", "counter", "Predictions committed.", "predictions", "predictions"),
    Metric(
        "streamrnn_flushed_predictions_total", "counter",
        "Predictions that waited for later readings and were sent because their stream fell silent.",
        "predictions", "flushed",
    ),
    Metric(
        "streamrnn_rejected_total", "counter", "Records committed to the dead letters.",
        "records", "rejected", "reason", REASONS,
    ),
    Metric(
        "streamrnn_flagged_readings_total", "counter",
        "Committed predictions about readings with something unusual about them.",
        "predictions", "flagged", "flag", FLAGS,
    ),
    Metric(
        "streamrnn_replayed_readings_total", "counter",
        "Readings recognised as folded in already, and not folded in again (at_least_once only).",
        "readings", "replayed",
    ),
    Metric(
        "streamrnn_epochs_total", "counter", "Epochs by how they ended: kept is visible, dropped never was.",
        "epochs", "epochs", "outcome", OUTCOMES,
    ),
    # how fast
    Metric(
        "streamrnn_end_to_end_latency_seconds", "histogram",
        "From a reading's Kafka timestamp until its prediction was committed.", "seconds", "latency_s",
    ),
    Metric(
        "streamrnn_step_seconds", "histogram", "Time of one turn of the loop, by phase.",
        "seconds", "phase_s", "phase", PHASES,
    ),
    Metric("streamrnn_batch_rows", "histogram", "Readings in one batch of the network.", "rows", "batch_rows"),
    Metric(
        "streamrnn_consumer_lag_messages", "gauge", "Records of the readings topic that are not read yet.",
        "messages", "lag", "partition",
    ),
    # streams and their state
    Metric("streamrnn_live_streams", "gauge", "Streams that have a state.", "streams", "live_streams"),
    Metric("streamrnn_slots", "gauge", "Rows of the state table on the device.", "slots", "slots"),
    Metric("streamrnn_slots_used", "gauge", "Slots that hold a stream's state.", "slots", "slots_used"),
    Metric(
        "streamrnn_evictions_total", "counter",
        "Streams that left the device (spilled: to make room; the state is kept) or were forgotten (idle).",
        "streams", "evictions", "reason", EVICTIONS,
    ),
    Metric("streamrnn_restored_streams", "gauge", "State rows read from the changelog at start.", "rows", "restored"),
    Metric("streamrnn_restore_seconds", "gauge", "Time that restoring state took at start.", "seconds", "restore_s"),
    Metric(
        "streamrnn_restore_done_ratio", "gauge", "Share of the changelog that is read, 0 to 1.", "ratio", "restore_done"
    ),
    # what forecasts are worth, each made before its truth was known
    Metric(
        "streamrnn_scored_values_total", "counter", "Values that forecasts were compared with when they came.",
        "values", "scored", "step",
    ),
    Metric(
        "streamrnn_forecast_mse", "gauge",
        "Present mean squared error of the forecasts, over the variance of the training data.", "", "mse", "step",
    ),
    Metric(
        "streamrnn_persistence_mse", "gauge", "What saying that nothing changes would have cost on the same readings.",
        "", "persistence_mse", "step",
    ),
    Metric(
        "streamrnn_forecast_mae", "gauge", "Present mean absolute error, in standard deviations of the training data.",
        "", "mae", "step",
    ),
    Metric(
        "streamrnn_forecast_pinball_loss", "gauge", "Present mean pinball loss of the band's two edges.",
        "", "pinball", "step",
    ),
    Metric(
        "streamrnn_band_coverage_ratio", "gauge", "Present share of truths that lay inside their band.",
        "ratio", "coverage", "step",
    ),
    Metric(
        "streamrnn_challenger_mse", "gauge", "As streamrnn_forecast_mse, of the model that runs in shadow.",
        "", "challenger_mse", "step",
    ),
    Metric(
        "streamrnn_drift_ratio", "gauge",
        "How far a feature's distribution, or the loss, is from what it was, over its threshold: 1 has drifted.",
        "ratio", "drift", "name", pipeline=True,
    ),
    # models
    Metric(
        "streamrnn_challenger_info", "info", "1, with the model that runs in shadow beside the served one.",
        field="challenger", label="model",
    ),
    Metric(
        "streamrnn_swap_seconds", "histogram", "Time between two epochs that a change of the champion took.",
        "seconds", "swap_s",
    ),
    Metric(
        "streamrnn_brought_over_streams_total", "counter",
        "Streams that a model got to know by a replay of their latest readings.", "streams", "brought_over",
    ),
    Metric(
        "streamrnn_verdicts_total", "counter", "Contests between two models, by how they ended.",
        "verdicts", "verdicts", "outcome", VERDICTS, pipeline=True,
    ),
    Metric(
        "streamrnn_contest", "gauge",
        "The contest that is on: share of the champion's loss that the challenger saves, with its interval.",
        "", "contest", "figure", pipeline=True,
    ),
    Metric(
        "streamrnn_champion_timestamp_seconds", "gauge", "When the champion became it; 0 without a registry.",
        "seconds", "champion_since_s", pipeline=True,
    ),
    Metric(
        "streamrnn_retrainings_total", "counter", "Retrainings, by how they ended.",
        "runs", "retrainings", "outcome", RETRAININGS, pipeline=True,
    ),
    Metric("streamrnn_retraining", "gauge", "1: a retraining is under way.", field="retraining", pipeline=True),
    Metric(
        "streamrnn_retrained_timestamp_seconds", "gauge", "When a retraining last gave a model; 0: none has.",
        "seconds", "retrained_s", pipeline=True,
    ),
    # the fleet
    Metric("streamrnn_shard_up", "gauge", "1: the shard's actor answers; 0: it is being replaced."),
    Metric("streamrnn_shard_ready", "gauge", "1: state restored and reading.", field="ready"),
    Metric(
        "streamrnn_shard_restarts_total", "counter", "Times the shard's actor was replaced.",
        "restarts", label="cause", values=CAUSES,
    ),
    Metric(
        "streamrnn_last_progress_timestamp_seconds", "gauge",
        "Wall clock when the loop last ended a turn; an idle topic counts as progress.", "seconds", "last_progress_s",
    ),
    Metric("streamrnn_model_info", "info", "1, with the model that the shard serves.", field="model", label="model"),
    Metric("streamrnn_build_info", "info", "1, with the versions of streamrnn, Python, torch, ray and kafka-python."),
)  # fmt: skip

BUILD_LABELS = ("version", "python", "torch", "ray", "kafka_python")
BY_NAME = {metric.name: metric for metric in METRICS}


def labels(metric: Metric) -> tuple[str, ...]:
    """Names of the labels of `metric`, in order."""
    if metric.name == "streamrnn_build_info":
        return BUILD_LABELS
    first = () if metric.pipeline else ("shard",)
    return (*first, metric.label) if metric.label else first


def document() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "All that `/metrics` on `telemetry.port` shows. Made of `services/telemetry/names.py` by",
        "`python -m services.telemetry.names > docs/metrics.md`; `make check` fails when the two differ.",
        "Counters start at 0 when a shard's actor starts, so look at them through `rate` or `increase`.",
        "No label ever holds a stream.",
        "",
        "| metric | kind | unit | labels | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{m.name}` | {m.kind} | {m.unit or '-'} | {', '.join(f'`{label}`' for label in labels(m))} | {m.help} |"
        for m in METRICS
    ]
    lines += ["", "## What labels can say", ""]
    lines += [f"- `{m.name}`, `{m.label}`: {', '.join(f'`{v}`' for v in m.values)}" for m in METRICS if m.values]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")
