"""Who gets in, and how much a pod may write where it runs."""

from __future__ import annotations

import pytest
from charts import EVERYBODY, PROVIDERS, Objects, Render

RETRAINING = "--set=registry.create=true,registry.url=,retraining.enabled=true,retraining.workers=1"


def ingress(objects: Objects, port: int) -> list[dict[str, object]]:
    """Rules of all policies that open a port to others than the release's own pods."""
    policies = [one["spec"] for one in objects.all if one["kind"] == "NetworkPolicy"]
    rules = [rule for one in policies for rule in one["ingress"]]
    return [rule for rule in rules if {"port": port} in rule.get("ports", [])]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_pod_can_fill_the_disk_of_its_node(render: Render, provider: str) -> None:
    seen = set()
    for where, pod in render("small", f"--set=ray.provider={provider},scratchSize=3Gi", RETRAINING).pods():
        for volume in pod["spec"].get("volumes", []):
            if "emptyDir" in volume:
                in_memory = volume["emptyDir"].get("medium") == "Memory"
                assert volume["emptyDir"].get("sizeLimit") == ("143Mi" if in_memory else "3Gi"), (where, volume)
                seen.add(volume["name"])
    assert seen == {"tmp", "home", "shm", "data"}


def test_nobody_reaches_the_page_until_somebody_is_named(render: Render) -> None:
    assert not ingress(render("small"), 9464)
    more = ("--set=metrics.podMonitor.enabled=true", EVERYBODY)
    for port in (9464, 8080):
        (rule,) = ingress(render("small", *more), port)
        assert rule["from"] == [{"namespaceSelector": {}}]
    assert not ingress(render("small", EVERYBODY), 8080)


def test_the_operator_gets_in_from_its_own_namespace_and_where_it_has_something_to_ask(render: Render) -> None:
    assert not ingress(render("small", "--set=ray.provider=kuberay"), 8265)
    assert not ingress(render("small", RETRAINING), 8265)
    (rule,) = ingress(render("small", "--set=ray.provider=kuberay", RETRAINING), 8265)
    assert rule["from"] == [{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }]  # fmt: skip
