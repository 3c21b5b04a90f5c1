"""Overview: is it well? For a person on call, who may never have seen it before."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.grafana.board import GREEN, RED, TARGET, YELLOW, board, changed, figure, graph, mark

STARTED = f"max by (cluster, pipeline) (streamrnn_start_timestamp_seconds{{{TARGET}}})"
# Within an hour: a scrape that was missed in between is no start.
STARTED_BEFORE = STARTED.replace("(streamrnn", "(max_over_time(streamrnn").replace("})", "}[1h] offset $__interval))")


def overview() -> Dashboard:
    """The dashboard that alerts lead to first."""
    late, missed = "streamrnn:pipeline_late:ratio_rate1h", "streamrnn:pipeline_unanswered:ratio_rate1h"
    made = board("overview", "Is it well? Green is well, red is somebody's business now; titles link to what to do.")
    made.annotation(mark("Server start", f"{STARTED} unless ({STARTED_BEFORE} == {STARTED})", "purple", "{{pipeline}}"))
    made.annotation(mark("Swap", changed("streamrnn_champion_timestamp_seconds"), "blue", "{{pipeline}}"))
    return (
        made.with_row(Row("Now"))
        .with_panel(
            figure(
                "Alerts that fire", "Alerts of this pipeline that fire now, of either severity.", "short",
                f'sum(ALERTS{{{TARGET},alertname=~"Streamrnn.*",alertstate="firing"}}) or vector(0)',
                steps=[(None, GREEN), (1, RED)], legend="alerts", alerts=["README"],
            )
        )
        .with_panel(
            figure(
                "Shards ready", "Share of the shards that have restored their state and read.", "percentunit",
                f"avg by (pipeline) (streamrnn_shard_up{{{TARGET}}})"
                f" * (sum by (pipeline) (streamrnn_shard_ready{{{TARGET}}})"
                f" / count by (pipeline) (streamrnn_shard_ready{{{TARGET}}}))",
                steps=[(None, RED), (0.999, GREEN)], alerts=["StreamrnnShardDown", "StreamrnnRestoreSlow"],
            )
        )
        .with_panel(
            figure(
                "Lag", "Age of the oldest reading that is not read yet.", "s",
                f"streamrnn:pipeline_lag_seconds:max{{{TARGET}}}",
                steps=[(None, GREEN), (10, YELLOW), (60, RED)], alerts=["StreamrnnLag"], decimals=1,
            )
        )
        .with_panel(
            figure(
                "Latency, 99 %", "99 of 100 predictions are committed this soon after their reading's arrival.", "s",
                f"streamrnn:pipeline_latency_seconds:p99_5m{{{TARGET}}}",
                steps=[(None, GREEN), (0.5, YELLOW), (1, RED)], alerts=["StreamrnnLatencyBudgetFast"],
            )
        )
        .with_panel(
            figure(
                "Rejected", "Share of the records that went to the dead letters, over five minutes.", "percentunit",
                f"streamrnn:pipeline_rejected:ratio_rate5m{{{TARGET}}}",
                steps=[(None, GREEN), (0.005, YELLOW), (0.01, RED)], alerts=["StreamrnnRejecting"], decimals=2,
            )
        )
        .with_panel(
            figure(
                "Error over persistence",
                "Squared error of the forecasts over that of saying that nothing changes; below 1 is worth something.",
                "none", f"max by (pipeline) (streamrnn:model_mse_over_persistence:ratio{{{TARGET}}})",
                steps=[(None, GREEN), (0.95, YELLOW), (1, RED)], alerts=["StreamrnnWorseThanPersistence"], decimals=2,
            )
        )
        .with_row(Row("The last hour"))
        .with_panel(
            graph(
                "Readings and predictions", "Committed a second. They go together: one prediction per reading.", "cps",
                {
                    "readings {{pipeline}}": f"streamrnn:pipeline_readings:rate2m{{{TARGET}}}",
                    "predictions {{pipeline}}": f"streamrnn:pipeline_predictions:rate2m{{{TARGET}}}",
                    "rejected {{pipeline}}": f"streamrnn:pipeline_rejected:rate2m{{{TARGET}}}",
                },
                alerts=["StreamrnnReadingsStopped"],
            )
        )
        .with_panel(
            graph(
                "Latency", "From a reading's arrival in Kafka until its prediction was committed.", "s",
                {
                    "50 % {{pipeline}}": f"streamrnn:pipeline_latency_seconds:p50_5m{{{TARGET}}}",
                    "99 % {{pipeline}}": f"streamrnn:pipeline_latency_seconds:p99_5m{{{TARGET}}}",
                },
                limit=1, alerts=["StreamrnnLatencyBudgetFast", "StreamrnnLatencyBudgetSlow"],
            )
        )
        .with_panel(
            graph(
                "Budgets, burn rate",
                "How many times faster than the objective allows its month's budget is used, over the last hour.",
                "none",
                {
                    "latency {{pipeline}}": f"{late}{{{TARGET}}} / 0.01",
                    "completeness {{pipeline}}": f"{missed}{{{TARGET}}} / 0.005",
                },
                limit=14.4, alerts=["StreamrnnLatencyBudgetFast", "StreamrnnCompletenessBudgetFast"],
            )
        )
        .with_panel(
            graph(
                "Restarts", "Shards' actors that were replaced, within ten minutes.", "short",
                {
                    "shard {{shard}} {{cause}}":
                        f"sum by (shard, cause) (increase(streamrnn_shard_restarts_total{{{TARGET}}}[10m])) > 0"
                },
                alerts=["StreamrnnShardRestarting", "StreamrnnShardDown"],
            )
        )
    )  # fmt: skip
