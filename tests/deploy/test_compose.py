"""deploy/compose.yaml as docker compose's own library reads it: that it is valid, names the files that there are, and
that its settings, Prometheus and Grafana agree with each other.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from binaries import compose, promtool

from services.settings import load

DEPLOY = Path(__file__).parents[2] / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
NAMES = ["grafana", "kafka", "prometheus", "sensors", "streamrnn", "topics"]


def read(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([compose(), file], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """With merges, variables and paths resolved; services by name."""
    done = read(DEPLOY / "compose.yaml")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert sorted(found["services"]) == NAMES
    return found


@pytest.fixture(scope="module")
def services(project: dict[str, Any]) -> dict[str, Any]:
    return dict(project["services"])


def mounted(service: dict[str, Any], inside: str) -> Path:
    """What is here, of what it has there."""
    return next(Path(one["source"]) for one in service["volumes"] if one["target"] == inside)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("shm_size:", "shm_sizes:", "services.streamrnn.shm_sizes"),
        ("kafka: {condition: service_started}", "kafkas: {condition: service_started}", "undefined service"),
        ("volumes:\n  kafka:", "volumes:\n  kafkas:", "undefined volume"),
        ("condition: service_healthy", "condition: service_well", "depends_on"),
        ("${VARIANT:-cpu}", "${VARIANT:?say which}", "say which"),
    ],
)
def test_what_is_wrong_would_be_found(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in TEXT
    broken = tmp_path / "compose.yaml"
    broken.write_text(TEXT.replace(old, new))
    done = read(broken)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize("service", NAMES)
def test_all_that_it_mounts_is_there_and_read_only(service: str, services: dict[str, Any]) -> None:
    for one in services[service].get("volumes", []):
        if one["type"] == "bind":
            assert Path(one["source"]).exists(), one
            assert one["read_only"], one


@pytest.mark.parametrize("service", ["grafana", "prometheus"])
def test_images_of_others_are_named_by_their_digest(service: str, services: dict[str, Any]) -> None:
    assert "@sha256:" in services[service]["image"]


def test_nothing_listens_beyond_this_machine(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 4
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_our_containers_are_as_strict_as_pods(services: dict[str, Any]) -> None:
    ours = [one for one in services.values() if "build" in one]
    assert len(ours) == 3
    for one in ours:
        assert one["read_only"] and one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert {path.partition(":")[0] for path in one["tmpfs"]} == {"/tmp", "/var/home"}
        assert (Path(one["build"]["context"]) / one["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")


def test_the_settings_are_the_services(services: dict[str, Any]) -> None:
    serving, kafka = services["streamrnn"], services["kafka"]
    settings = load(mounted(serving, "/etc/streamrnn/streamrnn.yaml"))
    assert settings.kafka["bootstrap_servers"] in kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert (mounted(serving, str(settings.model)) / "card.json").exists()
    assert [str(settings.telemetry.port)] == [one["published"] for one in serving["ports"]]
    assert float(serving["stop_grace_period"].removesuffix("s")) > settings.epoch.timeout_s


def test_prometheus_scrapes_the_server_and_knows_the_rules(services: dict[str, Any]) -> None:
    prometheus = services["prometheus"]
    (inside,) = (one.partition("=")[2] for one in prometheus["command"] if one.startswith("--config.file="))
    config = mounted(prometheus, inside)
    scraped = yaml.safe_load(config.read_text())
    settings = load(DEPLOY / "streamrnn.yaml")
    target = scraped["scrape_configs"][0]["static_configs"][0]
    assert target["targets"] == [f"streamrnn:{settings.telemetry.port}"]
    assert target["labels"]["pipeline"] == settings.pipeline
    for rules in scraped["rule_files"]:
        assert mounted(prometheus, str(Path(inside).parent / rules)).exists()
    checked = subprocess.run([promtool(), "check", "config", config], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _listed(folder: Path, key: str) -> list[dict[str, Any]]:
    return [one for file in folder.glob("*.yaml") for one in yaml.safe_load(file.read_text())[key]]


def test_grafana_finds_dashboards_and_prometheus(services: dict[str, Any]) -> None:
    grafana = services["grafana"]
    provisioning = mounted(grafana, "/etc/grafana/provisioning")
    providers = _listed(provisioning / "dashboards", "providers")
    assert providers
    for one in providers:
        dashboards = mounted(grafana, one["options"]["path"])
        assert [json.loads(file.read_text())["title"] for file in dashboards.glob("*.json")]
    sources = _listed(provisioning / "datasources", "datasources")
    assert [one["url"] for one in sources] == ["http://prometheus:9090"]
    assert [one["target"] for one in services["prometheus"]["ports"]] == [9090]


def test_the_chart_has_the_same_files() -> None:
    """One source: what compose mounts is what the chart ships."""
    files = DEPLOY.parent / "helm" / "streamrnn" / "files"
    copies = [*(files / "dashboards").glob("*.json"), *(files / "rules").glob("*.yaml")]
    assert copies
    for copy in copies:
        source = DEPLOY / ("grafana/dashboards" if copy.suffix == ".json" else "prometheus") / copy.name
        assert copy.read_bytes() == source.read_bytes(), copy.name
