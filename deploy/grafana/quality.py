"""Model quality: what forecasts are worth, against persistence and the challenger; drift, swaps, retrainings."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.grafana.board import BLUE, GREEN, RED, TARGET, YELLOW, board, changed, figure, graph, mark


def per(metric: str) -> str:
    """By model and step of the horizon; several servers say the same."""
    return f"max by (model, step) ({metric}{{{TARGET}}})"


def age(metric: str) -> str:
    """Time since a timestamp that is not 0."""
    return f"time() - max by (pipeline) ({metric}{{{TARGET}}} > 0)"


def quality() -> Dashboard:
    """The dashboard of models."""
    made = board("quality", "What forecasts are worth. All errors are of predictions made before the truth was known.")
    marks = {
        "Swap": ("streamrnn_champion_timestamp_seconds", "blue", "Another champion serves {{pipeline}}"),
        "Retraining": ("streamrnn_retrained_timestamp_seconds", "green", "A retraining of {{pipeline}} gave a model"),
    }
    for name, (metric, colour, text) in marks.items():
        made.annotation(mark(name, changed(metric), colour, text))
    failed = 'sum by (cluster, pipeline) (streamrnn_retrainings_total{%s,outcome!="trained"}%s)'
    failures = f"{failed % (TARGET, '')} - {failed % (TARGET, ' offset $__interval')} > 0"
    made.annotation(mark("Failed retraining", failures, "red", "A retraining of {{pipeline}} failed"))
    return (
        made.with_row(Row("Now"))
        .with_panel(
            figure(
                "Error over persistence", "Of the worst step. Below 1 the model is worth something.", "none",
                f"max by (pipeline) (streamrnn:model_mse_over_persistence:ratio{{{TARGET}}})", decimals=3,
                steps=[(None, GREEN), (0.95, YELLOW), (1, RED)], alerts=["StreamrnnWorseThanPersistence"],
            )
        )
        .with_panel(
            figure(
                "Drift", "The worst feature, or the loss, over its threshold. From 1 on it has drifted.", "none",
                f"max by (pipeline) (streamrnn_drift_ratio{{{TARGET}}})", decimals=2,
                steps=[(None, GREEN), (0.8, YELLOW), (1, RED)], alerts=["StreamrnnDrift"],
            )
        )
        .with_panel(
            figure(
                "Champion's age", "Since the champion became it.", "s", age("streamrnn_champion_timestamp_seconds"),
                decimals=0, alerts=["StreamrnnRetrainingStale"],
            )
        )
        .with_panel(
            figure(
                "Last retraining", "Since a retraining of this server last gave a model.", "s",
                age("streamrnn_retrained_timestamp_seconds"), decimals=0,
                alerts=["StreamrnnRetrainingStale", "StreamrnnRetrainingFailed"],
            )
        )
        .with_panel(
            figure(
                "Retraining", "Whether one is under way.", "none",
                f"max by (pipeline) (streamrnn_retraining{{{TARGET}}})",
                words={"0": ("idle", BLUE), "1": ("under way", YELLOW)},
            )
        )
        .with_panel(
            figure(
                "Models on trial", "Shards on which a challenger runs in shadow.", "short",
                f"count by (pipeline) (streamrnn_challenger_info{{{TARGET}}}) or vector(0)", legend="shards",
            )
        )
        .with_row(Row("Forecasts"))
        .with_panel(
            graph(
                "Squared error",
                "Of champion, challenger and persistence, over the data's variance. A challenger on trial follows a "
                "part of the streams: the contest compares both on the same ones.", "none",
                {
                    "champion {{model}}, step {{step}}": per("streamrnn_forecast_mse"),
                    "challenger {{model}}, step {{step}}": per("streamrnn_challenger_mse"),
                    "persistence, step {{step}}": f"max by (step) (streamrnn_persistence_mse{{{TARGET}}})",
                },
                alerts=["StreamrnnWorseThanPersistence"],
            )
        )
        .with_panel(
            graph(
                "Error over persistence", "By model and step. Above 1 it is worse than persistence.", "none",
                {"{{model}}, step {{step}}":
                    f"max by (model, step) (streamrnn:model_mse_over_persistence:ratio{{{TARGET}}})"},
                limit=1, alerts=["StreamrnnWorseThanPersistence"],
            )
        )
        .with_panel(
            graph(
                "Coverage of the band", "Share of truths inside their band; the card names its level.", "percentunit",
                {"{{model}}, step {{step}}": per("streamrnn_band_coverage_ratio")}, most=1,
            )
        )
        .with_panel(
            graph(
                "Absolute error and pinball loss", "In standard deviations of the training data.", "none",
                {
                    "absolute, step {{step}}": per("streamrnn_forecast_mae"),
                    "pinball, step {{step}}": per("streamrnn_forecast_pinball_loss"),
                },
            )
        )
        .with_panel(
            graph(
                "Values that the figures rest on", "Old ones count less: half after about 10,000.", "short",
                {"{{model}}, step {{step}}": per("streamrnn_scored_values")},
            )
        )
        .with_row(Row("Drift and contests"))
        .with_panel(
            graph(
                "Drift", "Distance of each feature, and of the loss, from what it was, over its threshold.", "none",
                {"{{name}}": f"max by (name) (streamrnn_drift_ratio{{{TARGET}}})"}, limit=1, alerts=["StreamrnnDrift"],
            )
        )
        .with_panel(
            graph(
                "The contest that is on",
                "Share of the champion's loss that the challenger saves, with its interval: above the margin it wins.",
                "percentunit", {"{{figure}}": f'max by (figure) (streamrnn_contest{{{TARGET},figure!="readings"}})'},
                least=None,
            )
        )
        .with_panel(
            graph(
                "Verdicts", "Contests since the server's start, by how they ended.", "short",
                {"{{outcome}}": f"sum by (outcome) (streamrnn_verdicts_total{{{TARGET}}})"},
            )
        )
        .with_panel(
            graph(
                "Retrainings", "Since the server's start, by how they ended.", "short",
                {"{{outcome}}": f"sum by (outcome) (streamrnn_retrainings_total{{{TARGET}}})"},
                alerts=["StreamrnnRetrainingFailed"],
            )
        )
        .with_panel(
            graph(
                "The retraining that is on", "Share of its passes that are done, where its folder is at hand.",
                "percentunit", {"{{pipeline}}": f"max by (pipeline) (streamrnn_retraining_done_ratio{{{TARGET}}})"},
                most=1,
            )
        )
        .with_panel(
            graph(
                "Swaps", "Time between two epochs that a change of the champion took, on average.", "s",
                {"swap": f"sum(streamrnn_swap_seconds_sum{{{TARGET}}})"
                         f" / (sum(streamrnn_swap_seconds_count{{{TARGET}}}) > 0)"},
            )
        )
        .with_panel(
            graph(
                "Streams brought over", "A second: streams that a model got to know by their latest readings.", "cps",
                {"streams": f"sum(rate(streamrnn_brought_over_streams_total{{{TARGET}}}[$__rate_interval]))"},
            )
        )
        .with_panel(
            graph(
                "Shards by model", "How many shards serve which model; two lines while a change goes through.", "short",
                {
                    "{{model}}": f"count by (model) (streamrnn_model_info{{{TARGET}}})",
                    "{{model}} in shadow": f"count by (model) (streamrnn_challenger_info{{{TARGET}}})",
                },
            )
        )
    )  # fmt: skip
