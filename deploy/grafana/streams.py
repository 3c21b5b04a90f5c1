"""Streams: what the streams in the spotlight did, what was predicted of them, and how surprising it was."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

from deploy.grafana.board import TARGET, board, choose, graph

STREAM = TARGET + ',stream=~"$stream"'
ONE = STREAM + ',target=~"$target"'


def streams() -> Dashboard:
    """The dashboard of `telemetry.spotlight`."""
    made = board(
        "streams",
        "Streams that the setting telemetry.spotlight names: actual, prediction, band, score. All are in Kafka.",
    )
    made.with_variable(choose("stream", "Stream", f"label_values(streamrnn_spotlight_actual{{{TARGET}}}, stream)"))
    made.with_variable(choose("target", "Target", f"label_values(streamrnn_spotlight_actual{{{STREAM}}}, target)"))

    def one(metric: str) -> str:
        return f"max by (stream, target) ({metric}{{{ONE}}})"

    actual, prediction = one("streamrnn_spotlight_actual"), one("streamrnn_spotlight_prediction")
    upper, lower = one("streamrnn_spotlight_upper"), one("streamrnn_spotlight_lower")

    picture = graph(
        "Actual, prediction and band",
        "The newest reading, what was predicted of it before it came, and the band in which it was expected.", "none",
        {"actual": actual, "prediction": prediction, "upper": upper, "lower": lower},
        width=24, height=12, least=None,
    )  # fmt: skip
    quiet = [
        DynamicConfigValue(id_val="custom.lineWidth", value=0),
        DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": "light-blue"}),
    ]
    band = [
        DynamicConfigValue(id_val="custom.fillBelowTo", value="lower"),
        DynamicConfigValue(id_val="custom.fillOpacity", value=20),
    ]
    picture.override_by_name("upper", [*quiet, *band])
    picture.override_by_name("lower", quiet)
    picture.override_by_name("prediction", [DynamicConfigValue(id_val="custom.lineWidth", value=2)])
    return (
        made.with_row(Row("$stream"))
        .with_panel(picture)
        .with_panel(
            graph(
                "Score", "How surprising the newest reading was: the higher, the less it was expected.", "none",
                {"{{stream}}": f"max by (stream) (streamrnn_spotlight_score{{{STREAM}}})"}, width=24,
            )
        )
        .with_panel(
            graph(
                "Error of the prediction", "Actual less prediction.", "none",
                {"{{target}}": f"{actual} - {prediction}"}, least=None,
            )
        )
        .with_panel(
            graph(
                "Width of the band", "Upper less lower edge: how sure the model is.", "none",
                {"{{target}}": f"{upper} - {lower}"},
            )
        )
    )  # fmt: skip
