"""Two releases in one namespace: each serves its own pipeline, Prometheus finds both, one retrains its model by
schedule, and one goes without the other noticing. In this order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from charts import CRDS
from installed import Sensors, Trial, another_model
from pod_monitors import Monitored

LEARNER, OTHER = "learner", "other"
PIPELINES = {LEARNER: "power", OTHER: "second"}
LITTLE = {"requests": {"cpu": "100m", "memory": "512Mi"}}
COMMON: dict[str, Any] = {
    "settings__fleet__shards": 1,
    "workerDefaults__resources": LITTLE,
    "workers__cpu__cpus": 2,
    "metrics__podMonitor__enabled": CRDS.is_dir(),
    "metrics__podMonitor__interval": "2s",
    "networkPolicy__metricsFrom": [{"namespaceSelector": {}}],
    "metrics__rules__enabled": CRDS.is_dir(),
}
VALUES: dict[str, dict[str, Any]] = {
    OTHER: {**COMMON, "settings__pipeline": PIPELINES[OTHER]},
    LEARNER: {
        **COMMON,
        "settings__pipeline": PIPELINES[LEARNER],
        "model__source": "configMap",
        "model__name": "untaught",
        "registry__existingClaim": "registry",
        "retraining__enabled": True,
        "retraining__resources": LITTLE,
        "settings__retrain": {"last": "3000", "recipe": {"updates": 60}},
        "settings__rollout": {"least_readings": 1000, "join_h": 0},
    },
}


class Pair:
    """Both releases, and the sensors of each."""

    def __init__(self, trial: Trial, first: str) -> None:
        self.trial, self.first = trial, first
        self._stack = ExitStack()
        self._sensors: dict[str, Sensors] = {}

    def feed(self) -> None:
        for release, pipeline in PIPELINES.items():
            self._sensors[release] = self._stack.enter_context(self.trial.sensors(release, pipeline))

    def starve(self) -> dict[str, int]:
        """Readings sent, of each release."""
        self._stack.close()
        return {release: one.sent for release, one in self._sensors.items()}


@pytest.fixture(scope="module")
def pair(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Installed, ready, and fed."""
    registry, model = (tmp_path_factory.mktemp(name) for name in ("registry", "model"))
    registry.chmod(0o777)
    trial.volume("registry", registry)
    first = another_model(model)
    files = [f"--from-file={model / name}" for name in ("card.json", "model.safetensors")]
    trial.kubectl("create", "configmap", "untaught", *files)
    for release, values in VALUES.items():
        trial.helm("install", release, wait=False, **values)
    made = Pair(trial, first)
    for release in VALUES:
        trial.node.until(partial(trial.ready, release), f"{release} serves", 300)
    made.feed()
    try:
        yield made
    finally:
        made.starve()


def test_each_serves_its_own_model(pair: Pair, trial: Trial, until: Callable[..., Any]) -> None:
    until(lambda: pair.first in trial.metrics(LEARNER), "the first model of the learner")
    assert pair.first not in trial.metrics(OTHER)


@pytest.mark.skipif(not CRDS.is_dir(), reason=f"no PodMonitor in {CRDS}: STREAMRNN_CRDS names the folder that has it")
def test_prometheus_finds_both_by_their_podmonitors(pair: Pair, tmp_path: Path, until: Callable[..., Any]) -> None:
    def pipelines(query: str) -> list[str]:
        return sorted(one["metric"]["pipeline"] for one in seen.now(query))

    both = sorted(PIPELINES.values())
    with Monitored(pair.trial.node, pair.trial.namespace, tmp_path) as seen:
        until(lambda: pipelines('up{job="streamrnn",cluster="default"} == 1') == both, "both servers are scraped", 60)
        until(lambda: pipelines('up{job="ray"} == 1') == sorted(both * 2), "heads and workers are scraped", 60)
        rate = 'sum by (pipeline) (rate(streamrnn_readings_total{job="streamrnn"}[10s])) > 0'
        until(lambda: pipelines(rate) == both, "readings are counted", 60)
        rules = [one for group in seen.ask("rules")["groups"] for one in group["rules"]]
        assert rules
        assert [(one["name"], one.get("lastError")) for one in rules if one["health"] == "err"] == []
        assert seen.now('ALERTS{alertstate="firing"}') == []


def test_the_schedule_retrains_and_the_better_model_takes_over(
    pair: Pair, trial: Trial, until: Callable[..., Any]
) -> None:
    until(lambda: trial.total(LEARNER, "streamrnn_readings_total") > 4000, "readings to learn from")
    trial.kubectl("create", "job", "now", f"--from=cronjob/{LEARNER}-streamrnn-retraining")
    until(lambda: {"succeeded", "failed"} & trial.job("now").keys(), "the training ends", 240)
    said = trial.kubectl("logs", "job/now")
    assert trial.job("now").get("succeeded"), said
    (challenger,) = re.findall(rf"([0-9a-f]{{12}}) challenges {pair.first}", said)
    served = lambda: re.search(rf'streamrnn_model_info{{[^}}]*model="{challenger}"', trial.metrics(LEARNER))  # noqa: E731
    until(served, "the challenger is champion", 240)


def test_nothing_was_lost_or_doubled_on_the_way(pair: Pair, trial: Trial) -> None:
    for release, sent in pair.starve().items():
        told = trial.check(release, PIPELINES[release])
        assert told["readings"] == told["predictions"] == sent
        assert told["lost"] == told["doubled"] == told["disordered"] == 0, told
        assert len(told["models"]) == (2 if release == LEARNER else 1)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"kafka__existingSecret": "nobody"}, 'kafka.existingSecret: there is no Secret "nobody"'),
        ({"model__source": "configMap", "model__name": "nobody"}, 'model.name: there is no ConfigMap "nobody"'),
        ({"topicCreation__by": "strimzi", "topicCreation__strimzi__cluster": "one"}, "install Strimzi"),
    ],
)
def test_what_is_not_there_is_named_before_anything_is_made(trial: Trial, values: dict[str, Any], why: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(why).replace('"', r'\\?"')):
        trial.helm("install", "third", wait=False, **values)
    assert not trial.kubectl("get", "all,configmap,secret", "-l", "app.kubernetes.io/instance=third", "-o", "name")


def test_one_goes_and_the_other_stays(pair: Pair, trial: Trial, until: Callable[..., Any]) -> None:
    token = trial.kubectl("get", "secret", f"{OTHER}-streamrnn-ray-auth", "-o", "jsonpath={.data.auth_token}")
    before = {one["metadata"]["uid"]: restarts(one) for one in of(trial, OTHER)}
    trial.node.helm("uninstall", LEARNER, "-n", trial.namespace, "--wait", "--timeout", "3m")
    until(lambda: not of(trial, LEARNER), "its pods are gone", 60)
    trial.helm("upgrade", OTHER, **VALUES[OTHER], test__timeoutSeconds=60)
    assert trial.kubectl("get", "secret", f"{OTHER}-streamrnn-ray-auth", "-o", "jsonpath={.data.auth_token}") == token
    assert {one["metadata"]["uid"]: restarts(one) for one in of(trial, OTHER)} == before
    assert "Succeeded" in trial.node.helm("test", OTHER, "-n", trial.namespace, "--timeout", "3m")


def of(trial: Trial, release: str) -> list[dict[str, Any]]:
    """Pods of a release that are to stay."""
    found = [one for one in trial.pods() if one["metadata"]["labels"].get("app.kubernetes.io/instance") == release]
    return [one for one in found if one["metadata"]["labels"]["app.kubernetes.io/component"] != "topics"]


def restarts(pod: dict[str, Any]) -> int:
    return sum(one["restartCount"] for one in pod["status"]["containerStatuses"])
