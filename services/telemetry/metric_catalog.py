"""Every metric as data: its name, kind, unit, labels, meaning, whose number it is, and the field that it shows.

A page of 200 shards stays below 500 KB (`python -m bench.scrape`): only what tells shards apart has a label `shard`;
histograms and long lists of label values are added up over shards.

docs/metrics.md is made of it, by `metrics_page`. Imports no prometheus_client.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from services.predictor.stats import PHASES, PLACES
from services.records import Flag, Reason

PREFIX = "streamrnn_"
Kind = Literal["counter", "gauge", "histogram", "info"]
Of = Literal["shard", "shards", "champion", "challenger", "pipeline", "spotlight", "server"]
"""Whose number it is, and so its first label.

shard                   a field of ShardStats; label `shard`
shards                  the same, added up over shards and their lives: it never goes back while the server lives
champion, challenger    a figure of its forecasts, of all shards together; label `model`
pipeline                a field of PipelineStats; no label
spotlight               a field of Points, of each stream in the spotlight, the newest; label `stream`
server                  the server's own, made by the collector
"""

REASONS = tuple(str(reason) for reason in Reason)
FLAGS = tuple(str(flag.name).lower() for flag in Flag)
OUTCOMES = ("kept", "dropped")
EVICTIONS = ("spilled", "idle")
CAUSES = ("died", "stalled")
VERDICTS = ("promoted", "rejected", "undecided", "expired", "rolled_back")
RETRAININGS = ("trained", "failed", "timed_out")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `label` is what it has beside its first one, `values` what that can say; empty: numbers or names."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    field: str = ""  # of ShardStats or PipelineStats, or a figure; empty: made by the collector itself
    label: str = ""
    values: tuple[str, ...] = ()
    of: Of = "shard"

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
        "predictions", "flushed", of="shards",
    ),
    Metric(
        "streamrnn_rejected_total", "counter", "Records committed to the dead letters.",
        "records", "rejected", "reason", REASONS, of="shards",
    ),
    Metric(
        "streamrnn_flagged_readings_total", "counter",
        "Committed predictions about readings with something unusual about them.",
        "predictions", "flagged", "flag", FLAGS, of="shards",
    ),
    Metric(
        "streamrnn_replayed_readings_total", "counter",
        "Readings recognised as folded in already, and not folded in again (at_least_once only).",
        "readings", "replayed", of="shards",
    ),
    Metric(
        "streamrnn_epochs_total", "counter", "Epochs by how they ended: kept is visible, dropped never was.",
        "epochs", "epochs", "outcome", OUTCOMES,
    ),
    Metric(
        "streamrnn_lost_readings_total", "counter",
        "Records that retention deleted before they were read.",
        "readings", "lost",
    ),
    Metric(
        "streamrnn_internal_errors_total", "counter",
        "Records and streams set aside, one by one, for an error of streamrnn's own that no check foresaw.",
        "errors", "internal_errors", "place", PLACES, of="shards",
    ),
    Metric(
        "streamrnn_partition_set_aside", "gauge",
        "1: the partition's next records cannot be read. It waits, the others go on; no series: it is read.",
        "", "set_aside", "partition",
    ),
    # how fast
    Metric(
        "streamrnn_end_to_end_latency_seconds", "histogram",
        "From a reading's Kafka timestamp until its prediction was committed.", "seconds", "latency_s", of="shards",
    ),
    Metric(
        "streamrnn_step_seconds", "histogram", "Time of one turn of the loop, by phase.",
        "seconds", "phase_s", "phase", PHASES, of="shards",
    ),
    Metric(
        "streamrnn_batch_rows", "histogram", "Readings in one batch of the network.", "rows", "batch_rows", of="shards",
    ),
    Metric(
        "streamrnn_consumer_lag_messages", "gauge",
        "Records of the readings topic that are not read yet; of a partition that is set aside as of its last try.",
        "messages", "lag", "partition",
    ),
    Metric(
        "streamrnn_consumer_lag_seconds", "gauge",
        "Age of the oldest record that is not read yet, at most, or for how long it has been seen; 0: all are read.",
        "seconds", "lag_s",
    ),
    Metric(
        "streamrnn_broker_away_seconds", "gauge", "Time for which Kafka has not answered the shard; 0: it answers.",
        "seconds", "away_s",
    ),
    Metric(
        "streamrnn_phase_seconds_total", "counter", "Time that the shard's loop has spent, by phase.",
        "seconds", "phase_total_s", "phase", PHASES,
    ),
    Metric(
        "streamrnn_last_epoch_timestamp_seconds", "gauge",
        "Wall clock when an epoch was last kept, and with it the changelog written; 0: none since the actor started.",
        "seconds", "last_epoch_s",
    ),
    # streams and their state
    Metric("streamrnn_live_streams", "gauge", "Streams that have a state.", "streams", "live_streams"),
    Metric(
        "streamrnn_unreadable_streams", "gauge",
        "Streams whose state row cannot be read or be true, so that their readings become dead letters.",
        "streams", "unreadable_streams",
    ),
    Metric(
        "streamrnn_streams_used_ratio", "gauge",
        "Of the streams that a partition may have (state.max_streams), the share that the shard's fullest one has.",
        field="streams_used",
    ),
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
    # the device
    Metric(
        "streamrnn_gpu_memory_bytes", "gauge", "Memory of the GPU that the shard runs on; absent without one.",
        "bytes", "gpu_total_bytes",
    ),
    Metric(
        "streamrnn_gpu_memory_free_bytes", "gauge", "Of it, what is free for anyone.", "bytes", "gpu_free_bytes",
    ),
    Metric(
        "streamrnn_gpu_memory_shard_bytes", "gauge", "Of it, what this shard has reserved.", "bytes", "gpu_own_bytes",
    ),
    # what forecasts are worth, each made before its truth was known
    Metric(
        "streamrnn_scored_values", "gauge",
        "Values that the champion's present figures rest on, each compared with its forecast; old ones count less.",
        "values", "n", "step", of="champion",
    ),
    Metric(
        "streamrnn_forecast_mse", "gauge",
        "Present mean squared error of the champion's forecasts, over the variance of the training data.",
        "", "mse", "step", of="champion",
    ),
    Metric(
        "streamrnn_persistence_mse", "gauge", "What saying that nothing changes would have cost on the same readings.",
        "", "persistence_mse", "step", of="champion",
    ),
    Metric(
        "streamrnn_forecast_mae", "gauge", "Present mean absolute error, in standard deviations of the training data.",
        "", "mae", "step", of="champion",
    ),
    Metric(
        "streamrnn_forecast_pinball_loss", "gauge", "Present mean pinball loss of the band's two edges.",
        "", "pinball", "step", of="champion",
    ),
    Metric(
        "streamrnn_band_coverage_ratio", "gauge", "Present share of truths that lay inside their band.",
        "ratio", "coverage", "step", of="champion",
    ),
    Metric(
        "streamrnn_challenger_mse", "gauge",
        "As streamrnn_forecast_mse, of the model that runs in shadow, over the streams that it follows.",
        "", "mse", "step", of="challenger",
    ),
    Metric(
        "streamrnn_drift_ratio", "gauge",
        "How far a feature's distribution, or the loss, is from what it was, over its threshold: 1 has drifted.",
        "ratio", "drift", "name", of="pipeline",
    ),
    # streams in the spotlight
    Metric(
        "streamrnn_spotlight_actual", "gauge",
        "The latest value of a stream that `telemetry.spotlight` names; absent where it was missing.",
        "", "actual", "target", of="spotlight",
    ),
    Metric(
        "streamrnn_spotlight_prediction", "gauge", "What had been forecast of that value, one reading before.",
        "", "predicted", "target", of="spotlight",
    ),
    Metric(
        "streamrnn_spotlight_lower", "gauge", "Lower edge of the band of that forecast.",
        "", "lower", "target", of="spotlight",
    ),
    Metric(
        "streamrnn_spotlight_upper", "gauge", "Upper edge of the band of that forecast.",
        "", "upper", "target", of="spotlight",
    ),
    Metric(
        "streamrnn_spotlight_score", "gauge", "How surprising the latest reading was, in nats per value.",
        "", "score", of="spotlight",
    ),
    # models
    Metric(
        "streamrnn_challenger_info", "info", "1, with the model that runs in shadow beside the served one.",
        field="challenger", label="model",
    ),
    Metric(
        "streamrnn_swap_seconds", "histogram", "Time between two epochs that a change of the champion took.",
        "seconds", "swap_s", of="shards",
    ),
    Metric(
        "streamrnn_brought_over_streams_total", "counter",
        "Streams that a model got to know by a replay of their latest readings.", "streams", "brought_over",
        of="shards",
    ),
    Metric(
        "streamrnn_verdicts_total", "counter", "Contests between two models, by how they ended.",
        "verdicts", "verdicts", "outcome", VERDICTS, of="pipeline",
    ),
    Metric(
        "streamrnn_contest", "gauge",
        "The contest that is on: share of the champion's loss that the challenger saves, with its interval.",
        "", "contest", "figure", of="pipeline",
    ),
    Metric(
        "streamrnn_champion_timestamp_seconds", "gauge", "When the champion became it; 0 without a registry.",
        "seconds", "champion_since_s", of="pipeline",
    ),
    Metric(
        "streamrnn_retrainings_total", "counter", "Retrainings, by how they ended.",
        "runs", "retrainings", "outcome", RETRAININGS, of="pipeline",
    ),
    Metric("streamrnn_retraining", "gauge", "1: a retraining is under way.", field="retraining", of="pipeline"),
    Metric(
        "streamrnn_retraining_done_ratio", "gauge",
        "Share of its passes that are done; 0: none is under way, or its folder is not on the server's machine.",
        field="retraining_done", of="pipeline",
    ),
    Metric(
        "streamrnn_retraining_loss", "gauge",
        "Of the latest pass, on what chooses among passes: the model's loss, and that of knowing nothing.",
        field="retraining_loss", label="part", of="pipeline",
    ),
    Metric(
        "streamrnn_retrained_timestamp_seconds", "gauge", "When a retraining last gave a model; 0: none has.",
        "seconds", "retrained_s", of="pipeline",
    ),
    Metric(
        "streamrnn_retraining_interval_seconds", "gauge", "Time between two retrainings by schedule; 0: there is none.",
        "seconds", "retrain_every_s", of="pipeline",
    ),
    # the fleet
    Metric(
        "streamrnn_unread_partitions", "gauge",
        "Partitions that were added to the readings and are not read yet: the fleet starts anew, or cannot because an "
        "output topic has fewer.", "partitions", "unread_partitions", of="pipeline",
    ),
    Metric("streamrnn_shard_up", "gauge", "1: the shard's actor answers; 0: it is being replaced."),
    Metric(
        "streamrnn_shard_start_timestamp_seconds", "gauge", "Wall clock when the shard's actor began.",
        "seconds", "started_s",
    ),
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
    Metric(
        "streamrnn_start_timestamp_seconds", "gauge", "Wall clock when the server began.", "seconds", of="server",
    ),
    Metric(
        "streamrnn_build_info", "info", "1, with the versions of streamrnn, Python, torch, ray and kafka-python.",
        of="server",
    ),
)  # fmt: skip

BUILD_LABELS = ("version", "python", "torch", "ray", "kafka_python")
BY_NAME = {metric.name: metric for metric in METRICS}


def labels(metric: Metric) -> tuple[str, ...]:
    """Names of the labels of `metric`, in order."""
    if metric.name == "streamrnn_build_info":
        return BUILD_LABELS
    of = {"shard": "shard", "champion": "model", "challenger": "model", "spotlight": "stream"}
    first = (of[metric.of],) if metric.of in of else ()
    return (*first, metric.label) if metric.label else first
