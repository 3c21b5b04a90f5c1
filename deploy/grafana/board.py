"""What our dashboards have in common: variables, links, marks, and how a panel is made. Imports the foundation SDK.

Every panel has a title, a unit and a description; every rate is taken over $__rate_interval; colours of lines are by
name, so that a shard or a phase looks the same on every panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

SOURCE = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TARGET = 'cluster=~"$cluster",pipeline=~"$pipeline"'
"""Label matchers of every query."""
SHARD = TARGET + ',shard=~"$shard"'
BOARDS = {
    "overview": "Overview",
    "pipeline": "Pipeline",
    "quality": "Model quality",
    "streams": "Streams",
    "ray": "Ray and GPU",
}
"""File's name -> title, of all dashboards; their uid is streamrnn-NAME."""
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"

Queries = Mapping[str, str]
"""Legend -> PromQL. In a legend {{label}} stands for a label's value."""


def board(name: str, description: str, shard: bool = False) -> dashboard.Dashboard:
    """An empty dashboard with the variables, the links and the marks that all of them have."""
    made = (
        dashboard.Dashboard(f"streamrnn / {BOARDS[name]}")
        .uid(f"streamrnn-{name}")
        .description(description)
        .tags(["streamrnn"])
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_values("cluster", "Cluster", "label_values(streamrnn_build_info, cluster)"))
        .with_variable(
            _values("pipeline", "Pipeline", 'label_values(streamrnn_build_info{cluster=~"$cluster"}, pipeline)')
        )
    )
    if shard:
        made.with_variable(_values("shard", "Shard", f"label_values(streamrnn_shard_up{{{TARGET}}}, shard)"))
    made.with_variable(
        dashboard.TextBoxVariable("runbooks")
        .label("Runbooks")
        .description("Address of the folder docs/runbooks")
        .default_value("docs/runbooks")
        .hide(models.VariableHide.HIDE_VARIABLE)
    )
    others = (
        dashboard.DashboardLink("streamrnn")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["streamrnn"])
        .as_dropdown(True)
        .keep_time(True)
        .include_vars(True)
    )
    return made.link(others).link(runbook("README"))


def choose(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable that is one value of a label, never all."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def _values(name: str, label: str, query: str) -> dashboard.QueryVariable:
    everything = models.VariableOption(text="All", value="$__all", selected=True)
    return choose(name, label, query).multi(True).include_all(True).all_value(".*").current(everything)


def runbook(alert: str) -> dashboard.DashboardLink:
    """A link to an alert's runbook; README is the list of them."""
    title = "Runbooks" if alert == "README" else f"What to do: {alert}"
    return (
        dashboard.DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .url(f"${{runbooks}}/{alert}.md")
        .icon("doc")
        .target_blank(True)
    )


def mark(name: str, query: str, colour: str, text: str) -> dashboard.AnnotationQuery:
    """A mark at each moment at which the query has data. Grafana marks every point that comes back: the query must be
    silent but for the one step of the change.
    """
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .icon_color(colour)
        .expr(query)
        .step("15s")
        .title_format(name)
        .text_format(text)
    )


def changed(metric: str) -> str:
    """The one step after a timestamp, or a counter, has grown: what it is now, less what it was a step ago."""
    now = f"max by (cluster, pipeline) ({metric}{{{TARGET}}})"
    return f"{now} - max by (cluster, pipeline) ({metric}{{{TARGET}}} offset $__interval) > 0"


def graph(
    title: str,
    description: str,
    unit: str,
    queries: Queries,
    *,
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    least: float | None = 0,
    most: float | None = None,
    limit: float | None = None,
    alerts: Sequence[str] = (),
) -> timeseries.Panel:
    """Lines over time. `limit`: from where on a value is bad, drawn as a line; `alerts`: whose runbooks it links."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .line_width(1)
        .fill_opacity(30 if stacked else 0)
        .show_points(common_models.VisibilityMode.NEVER)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .links([runbook(alert) for alert in alerts])
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if limit is not None:
        panel.thresholds(_steps([(None, "transparent"), (limit, RED)]))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED))
    for place, (legend, query) in enumerate(queries.items()):
        panel.with_target(_query(place, legend, query))
    return panel


def figure(
    title: str,
    description: str,
    unit: str,
    query: str,
    *,
    steps: Sequence[tuple[float | None, str]] = ((None, BLUE),),
    legend: str = "{{pipeline}}",
    width: int = 4,
    words: Mapping[str, tuple[str, str]] | None = None,
    decimals: int | None = None,
    alerts: Sequence[str] = (),
) -> stat.Panel:
    """The present value, large. `steps`: from which value on it has which colour; `words`: value -> text, colour."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(4)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(common_models.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(_steps(steps))
        .no_value("-")
        .links([runbook(alert) for alert in alerts])
        .with_target(_query(0, legend, query))
    )
    if decimals is not None:
        panel.decimals(decimals)
    if words is not None:
        options = {value: models.ValueMappingResult(text=text, color=colour) for value, (text, colour) in words.items()}
        panel.mappings([models.ValueMap(options=options)])
    return panel


def _steps(steps: Sequence[tuple[float | None, str]]) -> dashboard.ThresholdsConfig:
    made = [models.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(made)


def _query(place: int, legend: str, query: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery().ref_id("ABCDEFGHIJ"[place]).datasource(SOURCE).expr(query).legend_format(legend).range()
    )
