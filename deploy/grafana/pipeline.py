"""Pipeline: where time goes. Latency by phase, lag, epochs, slots, restores."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.grafana.board import SHARD, TARGET, board, changed, graph, mark


def rate(metric: str, by: str, matchers: str = SHARD) -> str:
    """Growth a second, by labels."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


def quantile(q: float, metric: str, by: str = "") -> str:
    """Of a histogram, which is of all shards."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', labels, TARGET)})"


def pipeline() -> Dashboard:
    """The dashboard of the loop."""
    made = board("pipeline", "Where time goes: phases of the loop, lag, epochs, slots, restores.", shard=True)
    made.annotation(mark("Swap", changed("streamrnn_champion_timestamp_seconds"), "blue", "{{pipeline}}"))
    latency, step = "streamrnn_end_to_end_latency_seconds", "streamrnn_step_seconds"
    return (
        made.with_row(Row("Latency"))
        .with_panel(
            graph(
                "Latency", "From a reading's arrival in Kafka until its prediction was committed, of all shards.", "s",
                {f"{100 * q:g} %": quantile(q, latency) for q in (0.5, 0.9, 0.99)},
                limit=1, alerts=["StreamrnnLatencyBudgetFast"],
            )
        )
        .with_panel(
            graph(
                "Phases, 99 %", "How long one turn of the loop is in each phase, of all shards.", "s",
                {"{{phase}}": quantile(0.99, step, "phase")}, alerts=["StreamrnnLag"],
            )
        )
        .with_panel(
            graph(
                "Time of the loop by phase",
                "Share of a shard's time in each phase; what is missing to 1 is waiting for readings.", "percentunit",
                {"{{phase}}": f"avg by (phase) (rate(streamrnn_phase_seconds_total{{{SHARD}}}[$__rate_interval]))"},
                stacked=True, most=1, alerts=["StreamrnnLag"],
            )
        )
        .with_panel(
            graph(
                "Readings in a batch", "Batches grow with the load: while one is committed the next gathers.", "short",
                {
                    "mean": f"{rate('streamrnn_batch_rows_sum', 'pipeline', TARGET)}"
                            f" / ({rate('streamrnn_batch_rows_count', 'pipeline', TARGET)} > 0)",
                    "99 %": quantile(0.99, "streamrnn_batch_rows"),
                },
            )
        )
        .with_row(Row("Load and lag"))
        .with_panel(
            graph(
                "Readings by shard", "Committed a second. Where shards differ, so do their partitions.", "cps",
                {"shard {{shard}}": rate("streamrnn_readings_total", "shard")}, stacked=True,
            )
        )
        .with_panel(
            graph(
                "Lag by shard", "Age of the oldest reading that is not read yet.", "s",
                {"shard {{shard}}": f"max by (shard) (streamrnn_consumer_lag_seconds{{{SHARD}}})"},
                limit=60, alerts=["StreamrnnLag", "StreamrnnNoProgress"],
            )
        )
        .with_panel(
            graph(
                "Unread records by partition", "Records of the readings topic that are not read yet.", "short",
                {"{{partition}}": f"max by (partition) (streamrnn_consumer_lag_messages{{{SHARD}}})"},
                alerts=["StreamrnnLag", "StreamrnnNoProgress"],
            )
        )
        .with_panel(
            graph(
                "Rejected by reason", "Records a second that went to the dead letters.", "cps",
                {"{{reason}}": f"{rate('streamrnn_rejected_total', 'reason', TARGET)} > 0"},
                stacked=True, alerts=["StreamrnnRejecting"],
            )
        )
        .with_panel(
            graph(
                "Unusual readings", "Predictions a second about readings that are late, repeated, incomplete.",
                "cps", {"{{flag}}": f"{rate('streamrnn_flagged_readings_total', 'flag', TARGET)} > 0"},
            )
        )
        .with_panel(
            graph(
                "Replayed and flushed",
                "Readings recognised as folded in already, and predictions sent because their stream fell silent.",
                "cps",
                {
                    "replayed": rate("streamrnn_replayed_readings_total", "pipeline", TARGET),
                    "flushed": rate("streamrnn_flushed_predictions_total", "pipeline", TARGET),
                },
            )
        )
        .with_row(Row("Epochs and state"))
        .with_panel(
            graph(
                "Epochs", "A second. A dropped epoch was never visible and is stepped again.", "cps",
                {"{{outcome}}": rate("streamrnn_epochs_total", "outcome")}, alerts=["StreamrnnEpochsAborting"],
            )
        )
        .with_panel(
            graph(
                "Age of the changelog", "Time since a shard last kept an epoch. Also grows without readings.", "s",
                {"shard {{shard}}":
                    f"time() - max by (shard) (streamrnn_last_epoch_timestamp_seconds{{{SHARD}}} > 0)"},
                alerts=["StreamrnnNoProgress"],
            )
        )
        .with_panel(
            graph(
                "Slots", "Live streams, the slots they may have on the device, and those that hold one.", "short",
                {
                    "live streams": f"sum(streamrnn_live_streams{{{SHARD}}})",
                    "slots": f"sum(streamrnn_slots{{{SHARD}}})",
                    "used": f"sum(streamrnn_slots_used{{{SHARD}}})",
                },
                alerts=["StreamrnnSlotsExhausted"],
            )
        )
        .with_panel(
            graph(
                "Streams that leave the device", "A second: spilled to make room, or idle for too long.",
                "cps", {"{{reason}}": rate("streamrnn_evictions_total", "reason")}, alerts=["StreamrnnSlotsExhausted"],
            )
        )
        .with_panel(
            graph(
                "Restore", "Share of its changelog that a shard has read; 1 once it serves.", "percentunit",
                {"shard {{shard}}": f"min by (shard) (streamrnn_restore_done_ratio{{{SHARD}}})"},
                most=1, alerts=["StreamrnnRestoreSlow"],
            )
        )
        .with_panel(
            graph(
                "Time of the last restore", "What a shard's start cost, and how many state rows it read.", "s",
                {"shard {{shard}}": f"max by (shard) (streamrnn_restore_seconds{{{SHARD}}})"},
                alerts=["StreamrnnRestoreSlow"],
            )
        )
    )  # fmt: skip
