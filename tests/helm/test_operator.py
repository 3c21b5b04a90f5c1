"""What KubeRay's operator makes of the chart's objects, and when; told by tests/support/as_operator.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import as_operator
import pytest
from charts import PROFILES, Helm, Objects, Render, profile

LONG = "a-name-as-long-as-helm-allows-it-" + "x" * 19
RETRAINING = "--set=registry.create=true,registry.url=,retraining.enabled=true,retraining.workers=1"
KUBERAY = ("--set=ray.provider=kuberay", RETRAINING)


def clusters(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    """The server's Ray, and that of a retraining."""
    yield "serving", objects.one("RayCluster")
    yield "retraining", as_operator.cluster_of(rayjob(objects))


def rayjob(objects: Objects) -> dict[str, Any]:
    """As files/make_rayjob.py makes it."""
    job: dict[str, Any] = json.loads(objects.one("ConfigMap", "-rayjob")["data"]["rayjob.json"])
    job["metadata"]["name"] += "-0"
    return job


@pytest.mark.parametrize("name", PROFILES)
def test_the_heads_service_has_each_port_once(render: Render, name: str) -> None:
    """A server refuses it otherwise, and no Ray starts."""
    for what, cluster in clusters(render(name, *KUBERAY)):
        ports = [one["port"] for one in as_operator.head_service(cluster)["spec"]["ports"]]
        assert len(ports) == len(set(ports)), (what, ports)
        for pod in pods(cluster):
            names = [one["name"] for one in pod["spec"]["containers"][0]["ports"]]
            assert names.count("metrics") == 1, what


@pytest.mark.parametrize("release", ["r", LONG])
@pytest.mark.parametrize("name", PROFILES)
def test_the_operator_takes_every_profile(newest: Helm, name: str, release: str) -> None:
    objects = Objects(newest.template(*profile(name, *KUBERAY), release=release))
    as_operator.check_job(rayjob(objects))
    for _, cluster in clusters(objects):
        as_operator.check(cluster)


@pytest.mark.parametrize(
    ("change", "restarts"),
    [
        ("image.tag=other", True),
        ("extraEnv[0].name=MORE,extraEnv[0].value=yes", True),
        ("workers.cpu.resources.limits.memory=7Gi", True),
        ("model.source=configMap,model.name=other", True),
        ("workers.cpu=null", True),
        ("workers.cpu.replicas=5", False),
        ("workers.cpu.replicas=0", False),
        ("workers.gpu.replicas=1", False),
        ("settings.log.level=debug", False),
        ("networkPolicy.enabled=false", False),
        ("commonLabels.team=data", False),
    ],
)
def test_what_changes_pods_makes_them_anew_and_replicas_do_not(render: Render, change: str, restarts: bool) -> None:
    on = ("--set=ray.provider=kuberay,workers.big.replicas=1,workers.big.cpus=3",)
    before, after = (render("small", *on, *more).one("RayCluster")["spec"] for more in ((), (f"--set={change}",)))
    assert as_operator.recreates(after)
    assert (as_operator.hashed(before) != as_operator.hashed(after)) == restarts


def test_a_group_of_none_stays_so_that_the_operator_ends_its_pods(render: Render) -> None:
    groups = render("gpu", *KUBERAY).one("RayCluster")["spec"]["workerGroupSpecs"]
    assert {one["groupName"]: as_operator.replicas(one) for one in groups} == {"cpu": 0, "gpu": 2}


def test_a_finished_retraining_gives_its_gpus_back_within_a_minute(render: Render) -> None:
    spec = rayjob(render("gpu", *KUBERAY))["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] <= 60


def pods(cluster: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield as_operator.head_pod(cluster)
    for group in cluster["spec"].get("workerGroupSpecs", []):
        yield as_operator.worker_pod(cluster, group)
