"""What KubeRay's operator would do with a RayCluster, as far as tests need it; the operator itself is no package.

It writes what it would fill in back into the object, under its own name, and starts the pod templates as plain pods.
"""

from __future__ import annotations

import json
from typing import Any

from installed import Trial


class Operator:
    """Of the one RayCluster of a namespace."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial

    def cluster(self) -> dict[str, Any]:
        """The RayCluster, as the server has it."""
        (found,) = self.trial.node.get("rayclusters", self.trial.namespace)
        return found

    def fill_in(self) -> None:
        """Writes the whole object back as the operator's own types print it."""
        whole = self.cluster()
        for group in whole["spec"]["workerGroupSpecs"]:
            group.setdefault("numOfHosts", 1)
            group.setdefault("scaleStrategy", {})
        for group in (whole["spec"]["headGroupSpec"], *whole["spec"]["workerGroupSpecs"]):
            group["template"].setdefault("metadata", {})
            for container in group["template"]["spec"]["containers"]:
                container.setdefault("resources", {})
        self.trial.kubectl("replace", "--field-manager=kuberay-operator", "-f", "-", given=json.dumps(whole))

    def reconcile(self) -> None:
        """Pods that there should be and are not, started; pods that should not be, or not so, ended."""
        wanted = {one["metadata"]["name"]: one for one in self._pods()}
        there = {one["metadata"]["name"]: one for one in self.trial.node.get("pods", self.trial.namespace, label=OURS)}
        for name, pod in there.items():
            if _template(pod) != _template(wanted.get(name, {})):
                self.trial.kubectl("delete", "pod", name)
                there = {other: one for other, one in there.items() if other != name}
        if missing := [one for name, one in wanted.items() if name not in there]:
            self.trial.node.apply(*missing)

    def _pods(self) -> list[dict[str, Any]]:
        spec = self.cluster()["spec"]
        groups = [("head", 1, spec["headGroupSpec"])]
        groups += [(one["groupName"], one["replicas"], one) for one in spec["workerGroupSpecs"]]
        return [self._pod(f"{name}-{number}", of["template"]) for name, count, of in groups for number in range(count)]

    def _pod(self, name: str, template: dict[str, Any]) -> dict[str, Any]:
        about = template.get("metadata", {})
        text = json.dumps(template, sort_keys=True)
        return {
            "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
            "metadata": {
                "name": f"ray-{name}", "namespace": self.trial.namespace,
                "labels": {**about.get("labels", {}), "ray.io/is-ray-node": "yes"},
                "annotations": {**about.get("annotations", {}), "tests/template": text},
            },
        }  # fmt: skip


OURS = "ray.io/is-ray-node=yes"


def _template(pod: dict[str, Any]) -> str | None:
    found: str | None = pod.get("metadata", {}).get("annotations", {}).get("tests/template")
    return found
