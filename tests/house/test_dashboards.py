"""Dashboards, rules and runbooks fit together: made of the code, complete, and naming only what exists.

That their queries give data is another matter: tests/observability.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.telemetry.metric_catalog import BY_NAME, labels

ROOT = Path(__file__).parents[2]
BOARDS = {
    path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
}
RULES = [rule for group in yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())["groups"]
         for rule in group["rules"]]  # fmt: skip
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Remedy"]
UNITS = {"short", "none", "percentunit", "percent", "s", "cps", "bytes", "decmbytes"}
COMMON = {"cluster", "pipeline", "job", "le", "alertname", "alertstate"}  # of the target, or of Prometheus


def panels() -> list[Any]:
    return [
        pytest.param(panel, id=f"{name}: {panel['title']}")
        for name, board in BOARDS.items()
        for panel in board["panels"]
        if panel["type"] != "row"
    ]


def expressions() -> list[tuple[str, str]]:
    """Every PromQL expression with where it stands."""
    found = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in RULES]
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            found += [(f"{name}: {panel['title']}", target["expr"]) for target in panel.get("targets", [])]
        found += [(f"{name}: {mark['name']}", mark["expr"]) for mark in board["annotations"].get("list", [])]
        found += [(f"{name}: ${one['name']}", one["query"]) for one in board["templating"]["list"]
                  if one["type"] == "query"]  # fmt: skip
    return found


def test_the_json_is_made_of_the_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.grafana.make", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert made == BOARDS, "run: make docs"


@pytest.mark.parametrize("name", BOARDS)
def test_every_dashboard_can_be_told_apart_and_narrowed_down(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"] == f"streamrnn-{name}" and board["title"].startswith("streamrnn / ") and board["description"]
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert list(variables)[:3] == ["datasource", "cluster", "pipeline"]
    assert ("shard" in variables) == ("$shard" in json.dumps(board["panels"]))
    for variable in (variables["cluster"], variables["pipeline"]):
        assert variable["includeAll"] and variable["multi"] and variable["allValue"] == ".*"
    used = set(re.findall(r"\$(?:\{)?([a-z]+)", " ".join(json.dumps(board[part]) for part in ("panels", "links"))))
    assert used <= variables.keys() | {"__rate"}, "every variable that is used is one of the dashboard's"
    identities = [panel["id"] for panel in board["panels"]]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("panel", panels())
def test_every_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"] and panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"], "a panel has a query"
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}" and target["legendFormat"]
        for function, window in re.findall(r"\b(rate|irate)\([^()]*\[([^\]]+)\]\)", target["expr"]):
            assert window == "$__rate_interval", f"{function} over {window}"
        for selector in re.findall(r"\{([^{}]*)\}", target["expr"]):
            assert 'cluster=~"$cluster",pipeline=~"$pipeline"' in selector, f"not of the chosen pipelines: {selector}"
    for link in panel["links"]:
        page = link["url"].removeprefix("${runbooks}/")
        assert (ROOT / "docs/runbooks" / page).exists(), link["url"]


def test_the_band_is_filled() -> None:
    picture = next(panel for panel in BOARDS["streams"]["panels"] if panel["title"] == "Actual, prediction and band")
    properties = {
        override["matcher"]["options"]: {one["id"]: one["value"] for one in override["properties"]}
        for override in picture["fieldConfig"]["overrides"]
    }
    assert properties["upper"]["custom.fillBelowTo"] == "lower"
    assert {"lower", "upper"} <= {target["legendFormat"] for target in picture["targets"]}


def test_expressions_name_metrics_and_labels_that_exist() -> None:
    known = {series: set(labels(metric)) for metric in BY_NAME.values() for series in metric.series()}
    for where, expression in expressions():
        for name, selector in re.findall(r"\b(streamrnn_[a-z0-9_]+)(?:\{([^}]*)\})?", expression):
            assert name in known, f"{where}: {name}"
            for label in re.findall(r"([a-z_]+)\s*(?:=~|!=|=|!~)", selector):
                assert label in known[name] | COMMON, f"{where}: {name} has no label {label}"
        for name in re.findall(r"\bstreamrnn:[a-z0-9_:]+", expression):
            assert name in RECORDED, f"{where}: {name} is not recorded"


def test_every_recorded_series_is_read_by_something() -> None:
    read = " ".join(expression for _, expression in expressions())
    assert not [name for name in RECORDED if not re.search(rf"{re.escape(name)}\b(?!:)", read)]


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_it_is_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning") and "for" in rule
    assert "{{ $labels.pipeline }}" in rule["annotations"]["summary"] and rule["annotations"]["description"]
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{alert}.md"
    page = (ROOT / "docs/runbooks" / f"{alert}.md").read_text()
    assert page.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == SECTIONS
    diagnosis = page[page.index("## Diagnosis") : page.index("## Remedy")]
    assert "```sh\n" in diagnosis, "exact commands"
    assert f"({alert}.md)" in (ROOT / "docs/runbooks/README.md").read_text()


def test_every_runbook_belongs_to_an_alert() -> None:
    assert {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")} == {*ALERTS, "README"}


def test_the_marks_are_changes() -> None:
    """Grafana marks every point of an answer; that there is but one is tested in tests/observability."""
    marks = [mark for board in BOARDS.values() for mark in board["annotations"].get("list", [])]
    assert {mark["name"] for mark in marks} == {"Swap", "Retraining", "Failed retraining", "Server start"}
    assert all("offset $__interval" in mark["expr"] and mark["textFormat"] for mark in marks)


def test_compose_reads_the_same_files() -> None:
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
    assert prometheus["rule_files"] == ["rules.yaml"]
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert source["datasources"][0]["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    for scrape in prometheus["scrape_configs"]:
        for static in scrape["static_configs"]:
            assert static["labels"].keys() >= {"cluster", "pipeline"}
