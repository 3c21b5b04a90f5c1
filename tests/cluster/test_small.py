"""The small profile on a real Kubernetes: installed, used, hurt, upgraded, rolled back, uninstalled; in this order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from charts import CHART
from installed import Trial, another_model

RELEASE, PIPELINE = "s", "power"
SETTINGS = "/etc/streamrnn/streamrnn.yaml"
VALUES = {"registry__existingClaim": "registry", "settings__rollout__automatic": False}
ALL = "all,configmap,secret,persistentvolumeclaim,networkpolicy,poddisruptionbudget,serviceaccount,role,rolebinding"


def complete(trial: Trial) -> dict[str, Any]:
    """What came of all readings so far: each was answered once, and in order."""
    told = trial.check(RELEASE, PIPELINE)
    assert {name: told[name] for name in ("lost", "doubled", "disordered")} == {
        "lost": 0, "doubled": 0, "disordered": 0,
    }, told  # fmt: skip
    assert told["predictions"] == told["readings"]
    return told


def ready(trial: Trial) -> bool:
    """Whether the server is there, and ready."""
    return trial.ready(RELEASE)


def kept(trial: Trial) -> float:
    """Epochs that the shards have kept, by the server's metrics; they begin anew with every shard."""
    lines = [one for one in trial.metrics(RELEASE).splitlines() if one.startswith("streamrnn_epochs_total")]
    return sum(float(one.rpartition(" ")[2]) for one in lines if 'outcome="kept"' in one)


def restarts(trial: Trial, component: str) -> int:
    return sum(one["restartCount"] for pod in trial.pods(component) for one in pod["status"]["containerStatuses"])


def uids(trial: Trial) -> dict[str, str]:
    """Component -> pod, of those that stay."""
    return {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["metadata"]["uid"]
        for pod in trial.pods()
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] not in ("topics", "test")
    }


@pytest.fixture(scope="module")
def registry(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its claim has the same name."""
    folder = tmp_path_factory.mktemp("registry")
    folder.chmod(0o777)
    trial.volume("registry", folder)
    return folder


def test_one_command_gives_predictions(trial: Trial, registry: Path, until: Callable[..., Any]) -> None:
    said = trial.helm("install", RELEASE, **VALUES)
    assert "FOR DEVELOPMENT ONLY" in said
    until(lambda: ready(trial), "the server is ready")
    with trial.sensors(RELEASE, PIPELINE) as sensors:
        until(lambda: kept(trial) > 20, "predictions")
    told = complete(trial)
    assert told["readings"] == sensors.sent
    assert list(told["models"]) == [json.loads((CHART / "files" / "model" / "card.json").read_text())["model"]]


def test_helm_test_sends_a_reading_through(trial: Trial) -> None:
    assert "Succeeded" in trial.node.helm("test", RELEASE, "-n", trial.namespace, "--timeout", "3m", timeout_s=200)


def test_a_killed_shard_a_deleted_worker_a_killed_head_and_a_deleted_server(
    trial: Trial, until: Callable[..., Any]
) -> None:
    with trial.sensors(RELEASE, PIPELINE):
        before = kept(trial)
        until(lambda: kept(trial) > before, "predictions")
        assert trial.node.run("pkill", "-9", "-f", "ray::ShardActor", check=False).returncode == 0
        until(lambda: "restarts_total" in trial.metrics(RELEASE) and died(trial) >= 2, "both shards are back")

        (worker,) = trial.pods("worker-cpu")
        trial.kubectl("delete", "pod", worker["metadata"]["name"], "--grace-period=0", "--force")
        until(lambda: died(trial) >= 4 and moved(trial), "another worker has the shards", 240)

        assert trial.node.run("pkill", "-9", "-f", "gcs_server", check=False).returncode == 0
        until(lambda: restarts(trial, "head") > 0 and ready(trial) and moved(trial), "a new head, and all is back", 300)

        (server,) = trial.pods("server")
        trial.kubectl("delete", "pod", server["metadata"]["name"])
        until(lambda: ready(trial) and moved(trial), "another server", 240)
    complete(trial)


def died(trial: Trial) -> int:
    """Times that actors were replaced because they had died."""
    lines = [one for one in trial.metrics(RELEASE).splitlines() if one.startswith("streamrnn_shard_restarts_total")]
    return int(sum(float(one.rpartition(" ")[2]) for one in lines if 'cause="died"' in one))


def moved(trial: Trial) -> bool:
    """Whether both shards have kept an epoch since their actors began."""
    lines = [one for one in trial.metrics(RELEASE).splitlines() if one.startswith("streamrnn_epochs_total")]
    shards = [one for one in lines if 'outcome="kept"' in one and float(one.rpartition(" ")[2]) > 0]
    return len(shards) == 2


def test_another_model_and_more_workers_and_back(trial: Trial, registry: Path, until: Callable[..., Any]) -> None:
    """Models change in the registry, without a restart; settings and workers by helm."""
    model = another_model(registry / "incoming")

    def models(*words: str) -> None:
        server = f"deploy/{RELEASE}-streamrnn-server"
        trial.kubectl("exec", server, "-c", "server", "--", "streamrnn", "models", *words, "-c", SETTINGS)

    with trial.sensors(RELEASE, PIPELINE):
        until(lambda: moved(trial), "predictions")
        models("add", "/var/lib/streamrnn/incoming")
        models("promote", model)
        until(lambda: served(trial) == {model}, "the other model serves")
        trial.helm("upgrade", RELEASE, **VALUES, workers__cpu__replicas=2, settings__state__slots=20000)
        until(lambda: ready(trial) and moved(trial), "all is back", 240)
        assert len(trial.pods("worker-cpu")) == 2
        trial.node.helm("rollback", RELEASE, "-n", trial.namespace, "--wait", "--timeout", "5m", timeout_s=320)
        until(lambda: ready(trial) and moved(trial) and len(trial.pods("worker-cpu")) == 1, "as before", 240)
    told = complete(trial)
    assert told["models"][model] > 0 and len(told["models"]) == 2


def served(trial: Trial) -> set[str]:
    """Models of all shards."""
    return set(re.findall(r'streamrnn_model_info{[^}]*model="([^"]*)"', trial.metrics(RELEASE)))


def test_a_change_that_needs_no_restart_causes_none(trial: Trial) -> None:
    before = uids(trial)
    trial.helm("upgrade", RELEASE, **VALUES, networkPolicy__metricsFrom=[{"podSelector": {}}], test__timeoutSeconds=60)
    assert uids(trial) == before


def test_a_drained_node_loses_nothing(trial: Trial, until: Callable[..., Any]) -> None:
    with trial.sensors(RELEASE, PIPELINE):
        until(lambda: moved(trial), "predictions")
        chosen = f"--pod-selector=app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component!=kafka"
        trial.node.kubectl(
            "drain", "node-1", chosen, "--delete-emptydir-data", "--force", "--timeout=120s", timeout_s=150
        )
        trial.node.kubectl("uncordon", "node-1")
        until(lambda: ready(trial) and moved(trial), "all is back", 300)
    complete(trial)


def test_its_pods_have_no_rights(trial: Trial) -> None:
    for pod in trial.pods():
        assert pod["spec"]["automountServiceAccountToken"] is False
        account = f"system:serviceaccount:{trial.namespace}:{pod['spec']['serviceAccountName']}"
        for verb, what in (("get", "secrets"), ("list", "pods"), ("create", "pods"), ("get", "configmaps")):
            said = trial.kubectl("auth", "can-i", verb, what, f"--as={account}", check=False)
            assert said.strip() == "no", f"{account} may {verb} {what}"


def test_uninstall_leaves_nothing(trial: Trial, until: Callable[..., Any]) -> None:
    trial.node.helm("uninstall", RELEASE, "-n", trial.namespace, "--wait", "--timeout", "3m", timeout_s=200)
    label = f"app.kubernetes.io/instance={RELEASE}"
    until(lambda: not trial.kubectl("get", ALL, "-l", label, "-o", "name").strip(), "nothing is left", 60)
