"""The same chart with `ray.provider: kuberay`, against a real API server that knows KubeRay's resources. What the
operator would make and end there, tests/support/as_operator.py does. In this order, on one release.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from as_operator import Operator
from charts import CRDS
from installed import Trial

pytestmark = pytest.mark.skipif(
    not CRDS.is_dir(), reason=f"there are no custom resources in {CRDS}: STREAMRNN_CRDS names the folder with KubeRay's"
)
RELEASE, PIPELINE, FULL = "k", "power", "k-streamrnn"
VALUES: dict[str, Any] = {
    "ray__provider": "kuberay",
    "ray__operatorNamespace": "kuberay",
    "registry__existingClaim": "registry",
    "retraining__enabled": True,
    "retraining__workers": 1,
    "workers__gpu__gpus": 0,  # of which the node has none
    "workers__gpu__resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
}


@pytest.fixture(scope="module")
def operator(trial: Trial) -> Operator:
    return Operator(trial)


def test_it_predicts(trial: Trial, operator: Operator, until: Callable[..., Any], writable: None) -> None:
    assert "Ray by kuberay" in trial.helm("install", RELEASE, wait=False, **VALUES)
    operator.fill_in()
    operator.reconcile()
    until(lambda: trial.ready(RELEASE), "the server is ready", 240)
    (service,) = trial.node.get("services", trial.namespace, label="ray.io/node-type=head")
    assert {one["name"]: one["port"] for one in service["spec"]["ports"]} == {"gcs": 6379, "metrics": 8080}
    with trial.sensors(RELEASE, PIPELINE) as sensors:
        until(lambda: trial.total(RELEASE, "streamrnn_predictions_total") > 500, "predictions")
    told = trial.check(RELEASE, PIPELINE)
    assert told["readings"] == told["predictions"] == sensors.sent > 0
    assert told["lost"] == told["doubled"] == told["disordered"] == 0


def test_worker_groups_change_and_come_back(trial: Trial, operator: Operator) -> None:
    """Beside what the operator has written into the object, which a server-side apply would otherwise conflict with."""
    before = operator.cluster()["spec"]
    more = {"workers__cpu__replicas": 2, "workers__big__replicas": 1, "workers__big__cpus": 2}
    trial.helm("upgrade", RELEASE, wait=False, **VALUES, **more)
    groups = {one["groupName"]: one for one in operator.cluster()["spec"]["workerGroupSpecs"]}
    assert {name: one["replicas"] for name, one in groups.items()} == {"cpu": 2, "big": 1, "gpu": 0}
    operator.fill_in()
    trial.node.helm("rollback", RELEASE, "-n", trial.namespace)
    assert operator.cluster()["spec"] == before


def test_a_change_that_needs_no_restart_causes_none(trial: Trial, operator: Operator) -> None:
    before = {one["metadata"]["uid"] for one in trial.pods() if one["metadata"]["labels"].get("job-name") is None}
    upgrade(trial, operator, networkPolicy__metricsFrom=[{"podSelector": {}}])
    assert before == {
        one["metadata"]["uid"] for one in trial.pods() if one["metadata"]["labels"].get("job-name") is None
    }


def test_a_group_of_none_leaves_no_pod_and_touches_no_other(trial: Trial, operator: Operator) -> None:
    before = ray_pods(trial)
    upgrade(trial, operator, workers__gpu__replicas=1)
    more = ray_pods(trial)
    assert before.items() < more.items() and [*more.values()].count("gpu") == 1
    upgrade(trial, operator)
    assert ray_pods(trial) == before


def test_an_upgrade_reaches_every_pod_and_a_group_taken_away_leaves_none(
    trial: Trial, operator: Operator, until: Callable[..., Any]
) -> None:
    upgrade(trial, operator, workers__gpu__replicas=1)
    before = ray_pods(trial)
    with trial.sensors(RELEASE, PIPELINE) as sensors:
        upgrade(trial, operator, ray__head__resources__limits__memory="2100Mi", workers__gpu=None)
        after = ray_pods(trial)
        assert not before.keys() & after.keys()
        assert sorted(after.values()) == ["cpu", "headgroup"]
        limits = [one["spec"]["containers"][0]["resources"]["limits"]["memory"] for one in trial.pods("head")]
        assert limits == ["2100Mi"]
        until(lambda: not trial.ready(RELEASE), "the server has noticed", 120)
        until(lambda: trial.ready(RELEASE), "the server is ready again", 240)
    told = trial.check(RELEASE, PIPELINE)
    assert told["readings"] == told["predictions"] >= sensors.sent > 0
    assert told["lost"] == told["doubled"] == told["disordered"] == 0


def test_the_schedule_makes_one_rayjob_at_a_time(trial: Trial, until: Callable[..., Any]) -> None:
    first = scheduled(trial, "first", until)
    (made,) = rayjobs(trial)
    name = made["metadata"]["name"]
    assert name in first
    assert made["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    assert "has not ended" in scheduled(trial, "second", until)
    assert len(rayjobs(trial)) == 1
    ended = json.dumps({"status": {"jobDeploymentStatus": "Complete"}})
    trial.kubectl("patch", "rayjob", name, "--subresource=status", "--type=merge", "-p", ended)
    assert "made RayJob" in scheduled(trial, "third", until)
    assert len(rayjobs(trial)) == 2


def test_the_server_takes_what_the_operator_makes_of_a_rayjob(trial: Trial, operator: Operator) -> None:
    """The `restricted` level judges pods and not what will make them; ports of a Service are judged by it alone."""
    for job in rayjobs(trial):
        operator.would_make(job)


def test_who_makes_rayjobs_may_do_nothing_else(trial: Trial) -> None:
    account = f"--as=system:serviceaccount:{trial.namespace}:{FULL}-retraining"

    def may(verb: str, what: str, *more: str) -> bool:
        return trial.kubectl("auth", "can-i", verb, what, account, *more, check=False).strip() == "yes"

    assert may("create", "rayjobs.ray.io") and may("list", "rayjobs.ray.io")
    for verb in ("delete", "update", "patch", "watch"):
        assert not may(verb, "rayjobs.ray.io"), verb
    for what in (
        "secrets",
        "pods",
        "configmaps",
        "rayclusters.ray.io",
        "jobs.batch",
        "roles.rbac.authorization.k8s.io",
    ):
        for verb in ("get", "list", "create", "update", "delete"):
            assert not may(verb, what), (verb, what)
    assert not may("create", "rayjobs.ray.io", "-n", "default")


def test_uninstall_leaves_nothing(trial: Trial, until: Callable[..., Any]) -> None:
    trial.node.helm("uninstall", RELEASE, "-n", trial.namespace, "--wait", "--timeout", "3m")
    kinds = "all,configmap,secret,networkpolicy,poddisruptionbudget,serviceaccount,role,rolebinding,rayclusters,rayjobs"
    label = f"app.kubernetes.io/instance={RELEASE}"
    until(lambda: not trial.kubectl("get", kinds, "-l", label, "-o", "name").strip(), "nothing is left", 120)


def upgrade(trial: Trial, operator: Operator, **values: Any) -> None:
    """With these values beside `VALUES`, as far as the operator would bring it to pods."""
    trial.helm("upgrade", RELEASE, wait=False, **{**VALUES, **values})
    operator.fill_in()
    operator.reconcile()


def ray_pods(trial: Trial) -> dict[str, str]:
    """Identity -> group, of the pods that are the operator's."""
    labels = {one["metadata"]["uid"]: one["metadata"]["labels"] for one in trial.pods()}
    return {uid: of["ray.io/group"] for uid, of in labels.items() if "ray.io/group" in of}


def rayjobs(trial: Trial) -> list[dict[str, Any]]:
    """Those of the release."""
    return trial.node.get("rayjobs", trial.namespace, label=f"app.kubernetes.io/instance={RELEASE}")


def scheduled(trial: Trial, name: str, until: Callable[..., Any]) -> str:
    """What the CronJob's pod says when its time comes, which is now."""
    trial.kubectl("create", "job", name, f"--from=cronjob/{FULL}-retraining")
    until(lambda: {"succeeded", "failed"} & trial.job(name).keys(), f"job {name} ends")
    said = trial.kubectl("logs", f"job/{name}")
    assert trial.job(name).get("succeeded"), said
    return said


@pytest.fixture(scope="module")
def writable(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The claim `registry`."""
    folder = tmp_path_factory.mktemp("registry")
    folder.chmod(0o777)
    trial.volume("registry", folder)
