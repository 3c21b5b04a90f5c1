"""A namespace of a real cluster that refuses what the `restricted` level of Pod Security refuses, the chart in it, and
sensors and a judge beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import image
from charts import CHART, ROOT
from one_node import OneNode

HOUSE = ROOT / "tests" / "cluster" / "house.py"


class Trial:
    """A namespace, and one release of the chart in it."""

    def __init__(self, node: OneNode, namespace: str, folder: Path) -> None:
        self.node, self.namespace, self.folder = node, namespace, folder
        self._volumes: list[str] = []
        node.apply({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        })  # fmt: skip
        self.volume("heavy", image.heavy(), read_only=True)

    def volume(self, name: str, path: Path, *, read_only: bool = False) -> None:
        """A claim of that name, of a folder of this machine: as an administrator would give it."""
        whole = f"{self.namespace}-{name}"
        modes, size = ["ReadOnlyMany" if read_only else "ReadWriteMany"], {"storage": "10Gi"}
        volume = {"capacity": size, "accessModes": modes, "hostPath": {"path": str(path)}, "storageClassName": "",
                  "claimRef": {"namespace": self.namespace, "name": name}}  # fmt: skip
        claim = {"accessModes": modes, "resources": {"requests": size}, "volumeName": whole, "storageClassName": ""}
        self.node.apply(
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": whole}, "spec": volume},
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
             "metadata": {"name": name, "namespace": self.namespace}, "spec": claim},
        )  # fmt: skip
        self._volumes.append(whole)

    def helm(self, how: str, release: str, *, wait: bool = True, **values: Any) -> str:
        """install or upgrade, with the small profile and these values (dots in keys as __); waits until all is up."""
        file = self.folder / f"{release}.json"
        file.write_text(json.dumps(nested({**image.VALUES, **values})))
        profile = CHART / "profiles" / "small.yaml"
        patience = ["--wait", "--timeout", "6m"] if wait else []
        return self.node.helm(
            how, release, CHART, "-n", self.namespace, "-f", profile, "-f", file, *patience, timeout_s=400
        )

    def pods(self, component: str = "") -> list[dict[str, Any]]:
        """Pods that are not going, of all components or one."""
        label = f"app.kubernetes.io/component={component}" if component else ""
        found = self.node.get("pods", self.namespace, label=label)
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def kubectl(self, *arguments: str, **how: Any) -> str:
        """In this namespace."""
        return self.node.kubectl("-n", self.namespace, *arguments, **how)

    def metrics(self, release: str) -> str:
        """The page /metrics of the server, by its Service; empty while there is none."""
        path = f"/api/v1/namespaces/{self.namespace}/services/{release}-streamrnn-server:metrics/proxy/metrics"
        return self.node.run(self.node.kubectl_program, "get", "--raw", path, check=False).stdout

    def total(self, release: str, metric: str) -> float:
        """Over all its series."""
        lines = [one for one in self.metrics(release).splitlines() if one.startswith((metric + "{", metric + " "))]
        return sum(float(one.rpartition(" ")[2]) for one in lines)

    def ready(self, release: str) -> bool:
        """Whether the server is there, alone, and ready."""
        label = f"app.kubernetes.io/component=server,app.kubernetes.io/instance={release}"
        pods = self.node.get("pods", self.namespace, label=label)
        conditions = [one for pod in pods for one in pod["status"].get("conditions", [])]
        return len(pods) == 1 and any({"type": "Ready", "status": "True"}.items() <= one.items() for one in conditions)

    def job(self, name: str) -> dict[str, Any]:
        """Its status."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "job", name, "-o", "json"))["status"]
        return found

    def sensors(self, release: str, pipeline: str) -> Sensors:
        """Sends as long as its `with` lasts."""
        return Sensors(self, release, pipeline)

    def check(self, release: str, pipeline: str, timeout_s: float = 120.0) -> dict[str, Any]:
        """See house.py."""
        given = [self.bootstrap(release), pipeline, f"{timeout_s:g}"]
        said = self.node.run(sys.executable, HOUSE, "check", *given, timeout_s=timeout_s + 60).stdout
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found

    def bootstrap(self, release: str) -> str:
        """Of the release's own Kafka."""
        return f"{release}-streamrnn-kafka.{self.namespace}:9092"

    def end(self) -> None:
        """Takes the namespace away, and with it everything."""
        self.node.kubectl("delete", "namespace", self.namespace, "--wait", "--timeout=120s", check=False, timeout_s=150)
        for volume in self._volumes:
            self.node.kubectl("delete", "persistentvolume", volume, "--wait=false", check=False)


class Sensors:
    """A process on the node that sends readings; `sent` is known once it has ended."""

    def __init__(self, trial: Trial, release: str, pipeline: str) -> None:
        self.sent = 0
        node = trial.node
        self._process = subprocess.Popen(
            node.command(sys.executable, HOUSE, "send", trial.bootstrap(release), pipeline),
            env={**node.environment(), "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Sensors:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        said, wrong = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, wrong[-2000:]
        if kind is None:
            self.sent = json.loads(said.splitlines()[-1])["sent"]


def another_model(folder: Path) -> str:
    """Made in the folder, of the same shape as the chart's, with weights that nothing has taught; its id."""
    import torch

    from rnn.io import weights
    from rnn.nn.network import Network

    _, card = weights.load(CHART / "files" / "model")
    torch.manual_seed(1)
    made: str = weights.save(folder, Network(card.config).eval(), created_ms=1).model
    return made


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """`{"a__b": 1}` as `{"a": {"b": 1}}`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *way, last = path.split("__")
        at = tree
        for step in way:
            at = at.setdefault(step, {})
        at[last] = value
    return tree
