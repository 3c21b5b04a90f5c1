"""deploy/compose.yaml against compose's own schema, and that its parts name each other and the files that there are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from binaries import compose_schema, promtool

from services.settings import load

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def mounts(service: str) -> dict[str, str]:
    """Path inside -> path here, as written."""
    split = [one.split(":") for one in SERVICES[service].get("volumes", [])]
    return {inside: here for here, inside, *_ in split}


def test_it_keeps_to_the_schema() -> None:
    jsonschema.Draft202012Validator(json.loads(compose_schema().read_text())).validate(COMPOSE)


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [("kafka", "ports", {"a": 1}), ("streamrnn", "shm_sizes", "1g"), ("grafana", "depends_on", 3)],
)
def test_the_schema_refuses(service: str, key: str, value: object) -> None:
    broken = {**COMPOSE, "services": {**SERVICES, service: {**SERVICES[service], key: value}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json.loads(compose_schema().read_text())).validate(broken)


@pytest.mark.parametrize("service", SERVICES)
def test_all_that_it_mounts_is_there_and_read_only(service: str) -> None:
    for one in SERVICES[service].get("volumes", []):
        here, _, *mode = one.split(":")
        if here.startswith("."):
            assert (DEPLOY / here).exists(), one
            assert mode == ["ro"], one
        else:
            assert here in COMPOSE["volumes"], one


def test_nothing_listens_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 4
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_our_containers_are_as_strict_as_pods() -> None:
    ours = [one for one in SERVICES.values() if "build" in one]
    assert len(ours) == 3
    for one in ours:
        assert one["read_only"] and one["cap_drop"] == ["ALL"]
        assert {path.partition(":")[0] for path in one["tmpfs"]} == {"/tmp", "/var/home"}


def test_the_settings_are_the_services() -> None:
    settings = load(DEPLOY / mounts("streamrnn")["/etc/streamrnn/streamrnn.yaml"])
    asked = settings.kafka["bootstrap_servers"]
    assert asked in str(SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"])
    assert str(settings.model) in mounts("streamrnn")
    assert f"127.0.0.1:{settings.telemetry.port}:{settings.telemetry.port}" in SERVICES["streamrnn"]["ports"]
    grace_s = float(str(SERVICES["streamrnn"]["stop_grace_period"]).removesuffix("s"))
    assert grace_s > settings.epoch.timeout_s


def test_prometheus_scrapes_the_server_and_knows_the_rules() -> None:
    given = next(one for one in SERVICES["prometheus"]["command"] if one.startswith("--config.file="))
    inside = Path(given.partition("=")[2])
    config = DEPLOY / mounts("prometheus")[str(inside)]
    scraped = yaml.safe_load(config.read_text())
    settings = load(DEPLOY / "streamrnn.yaml")
    target = scraped["scrape_configs"][0]["static_configs"][0]
    assert target["targets"] == [f"streamrnn:{settings.telemetry.port}"]
    assert target["labels"]["pipeline"] == settings.pipeline
    for rules in scraped["rule_files"]:
        assert str(inside.parent / rules) in mounts("prometheus")
    checked = subprocess.run(
        [promtool(), "check", "config", config], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _listed(folder: Path, key: str) -> list[dict[str, Any]]:
    return [one for file in folder.glob("*.yaml") for one in yaml.safe_load(file.read_text())[key]]


def test_grafana_finds_dashboards_and_prometheus() -> None:
    provisioning = DEPLOY / mounts("grafana")["/etc/grafana/provisioning"]
    for one in _listed(provisioning / "dashboards", "providers"):
        dashboards = DEPLOY / mounts("grafana")[one["options"]["path"]]
        assert [json.loads(file.read_text())["title"] for file in dashboards.glob("*.json")]
    sources = _listed(provisioning / "datasources", "datasources")
    assert [one["url"] for one in sources] == ["http://prometheus:9090"]
    assert "127.0.0.1:9090:9090" in SERVICES["prometheus"]["ports"]


def test_the_chart_has_the_same_files() -> None:
    """One source: what compose mounts is what the chart ships."""
    files = DEPLOY.parent / "helm" / "streamrnn" / "files"
    for copy in [*(files / "dashboards").glob("*.json"), *(files / "rules").glob("*.yaml")]:
        source = DEPLOY / ("grafana/dashboards" if copy.suffix == ".json" else "prometheus") / copy.name
        assert copy.read_bytes() == source.read_bytes(), copy.name
