"""What KubeRay's operator 1.7 does with a RayCluster or a RayJob, as far as tests need it: the operator is no package.

Told after its sources. What it refuses; the head's Service, made of the ports of the head's container; the pods, with
what it adds to their templates; and when it ends pods: those that are too many, all of them where the spec has changed
and `upgradeStrategy` says Recreate, and none else, whatever became of their group or template.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

from installed import Trial

HEAD_GROUP = "headgroup"
MAX_CLUSTER_NAME, MAX_JOB_NAME = 53, 47
METRICS, METRICS_PORT = "metrics", 8080
DEFAULT_PORTS = {"client": 10001, "gcs-server": 6379, "dashboard": 8265, METRICS: METRICS_PORT, "serve": 8000}
ORIGIN = "ray.io/originated-from-crd"
HASH = "ray.io/upgrade-strategy-recreate-hash"


class Refused(Exception):
    """What the operator says of an object that it does nothing with. A server takes such an object."""


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
        """Until the operator would have nothing left to do. Raises Refused, or RuntimeError with the server's words
        where that refuses what the operator asks of it.
        """
        cluster = self.cluster()
        check(cluster)
        kubectl, name = self.trial.kubectl, cluster["metadata"]["name"]
        if not self._there("services", f"ray.io/cluster={name},ray.io/node-type=head"):
            kubectl("create", "-f", "-", given=json.dumps(head_service(cluster)))
        mine = f"ray.io/cluster={name}"
        head = self._there("pods", f"{mine},ray.io/node-type=head")
        if head and recreates(cluster["spec"]) and head[0]["metadata"]["annotations"][HASH] != hashed(cluster["spec"]):
            kubectl("delete", "pod", "-l", mine, "--wait", "--timeout=100s")
            head = []
        missing = [] if head else [head_pod(cluster)]
        for group in cluster["spec"]["workerGroupSpecs"]:
            # By the label alone, as the operator does: of a group named as the head's, the head is one.
            there = self._there("pods", f"{mine},ray.io/group={group['groupName']}")
            wanted = replicas(group)
            missing += [worker_pod(cluster, group) for _ in range(wanted - len(there))]
            for pod in there[wanted:]:
                kubectl("delete", "pod", pod["metadata"]["name"], "--wait", "--timeout=100s")
        if missing:
            whole = {"apiVersion": "v1", "kind": "List", "items": missing}
            kubectl("create", "-f", "-", given=json.dumps(whole))

    def would_make(self, job: dict[str, Any]) -> None:
        """Lets the server judge what the operator would make of a RayJob, and makes nothing. Raises as `reconcile`."""
        check_job(job)
        cluster = cluster_of(job)
        check(cluster)
        spec = cluster["spec"]
        made = [head_service(cluster), head_pod(cluster)]
        made += [
            worker_pod(cluster, group) for group in spec.get("workerGroupSpecs", []) for _ in range(replicas(group))
        ]
        template = job["spec"]["submitterPodTemplate"]
        about = {**template["metadata"], "name": "submitter"}
        made.append({"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": template["spec"]})
        whole = {"apiVersion": "v1", "kind": "List", "items": made}
        self.trial.kubectl("create", "--dry-run=server", "-f", "-", given=json.dumps(whole))

    def _there(self, what: str, label: str) -> list[dict[str, Any]]:
        return self.trial.node.get(what, self.trial.namespace, label=label)


def check(cluster: dict[str, Any]) -> None:
    """Raises Refused."""
    about, spec = cluster["metadata"], cluster["spec"]
    if len(about["name"]) > MAX_CLUSTER_NAME:
        raise Refused(f"RayCluster name should be no more than {MAX_CLUSTER_NAME} characters")
    for group in spec.get("workerGroupSpecs", []):
        name, least, most = group["groupName"], group.get("minReplicas"), group.get("maxReplicas")
        if least is None or most is None:
            raise Refused(f"worker group {name} must set both minReplicas and maxReplicas when autoscaling is disabled")
        if least < 0 or most < 0 or least > most:
            raise Refused(f"worker group {name} has minReplicas {least} greater than maxReplicas {most}")
    strategy = spec.get("upgradeStrategy", {}).get("type")
    if strategy not in (None, "Recreate", "None"):
        raise Refused(f"Spec.UpgradeStrategy.Type value {strategy} is invalid")
    if strategy is not None and about.get("labels", {}).get(ORIGIN) in ("RayJob", "RayService"):
        raise Refused(f"upgradeStrategy cannot be set when RayCluster is created by {about['labels'][ORIGIN]}")
    if spec.get("authOptions", {}).get("mode") == "token" and not spec.get("rayVersion"):
        raise Refused("authOptions.mode is 'token' but RayVersion was not specified")


def check_job(job: dict[str, Any]) -> None:
    """Raises Refused: such a RayJob becomes ValidationFailed and never runs."""
    spec = job["spec"]
    if len(job["metadata"]["name"]) > MAX_JOB_NAME:
        raise Refused(f"RayJob name should be no more than {MAX_JOB_NAME} characters")
    if spec.get("ttlSecondsAfterFinished", 0) < 0:
        raise Refused("TTLSecondsAfterFinished must be a non-negative integer")
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not spec.get("shutdownAfterJobFinishes"):
        raise Refused("a RayJob with shutdownAfterJobFinishes set to false cannot have TTLSecondsAfterFinished")
    if spec.get("activeDeadlineSeconds", 1) <= 0:
        raise Refused("activeDeadlineSeconds must be a positive integer")
    if spec.get("backoffLimit", 0) < 0:
        raise Refused("backoffLimit must be a positive integer")


def cluster_of(job: dict[str, Any]) -> dict[str, Any]:
    """The RayCluster that the operator makes for a RayJob."""
    about = job["metadata"]
    labels = {**about.get("labels", {}), ORIGIN: "RayJob"}
    return {
        "apiVersion": "ray.io/v1", "kind": "RayCluster", "spec": job["spec"]["rayClusterSpec"],
        "metadata": {"name": f"{about['name']}-abcde", "labels": labels, "annotations": about.get("annotations", {})},
    }  # fmt: skip


def recreates(spec: dict[str, Any]) -> bool:
    """Whether a changed spec ends pods."""
    return bool(spec.get("upgradeStrategy", {}).get("type") == "Recreate")


def hashed(spec: dict[str, Any]) -> str:
    """Changes with what recreates all pods: not with replicas, nor with tolerations."""
    rest = copy.deepcopy(spec)
    rest.pop("upgradeStrategy", None)
    rest["headGroupSpec"]["template"]["spec"].pop("tolerations", None)
    for group in rest.get("workerGroupSpecs", []):
        group["template"]["spec"].pop("tolerations", None)
        for key in ("replicas", "minReplicas", "maxReplicas"):
            group.pop(key, None)
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def replicas(group: dict[str, Any]) -> int:
    """Pods of a group."""
    least, most = group["minReplicas"], group["maxReplicas"]
    return int(min(max(group.get("replicas", least), least), most) * group.get("numOfHosts", 1))


def head_service(cluster: dict[str, Any]) -> dict[str, Any]:
    """Of the ports that the head's container names, and one for metrics unless a port has that name."""
    template = cluster["spec"]["headGroupSpec"]["template"]
    given = template["spec"]["containers"][0].get("ports", [])
    ports = {one.get("name") or f"{one['containerPort']}-port": one["containerPort"] for one in given} or DEFAULT_PORTS
    name, labels = cluster["metadata"]["name"], template.get("metadata", {}).get("labels", {})
    chosen = {
        "ray.io/cluster": name, "ray.io/node-type": "head", "ray.io/identifier": f"{name}-head",
        "app.kubernetes.io/name": labels.get("app.kubernetes.io/name", "kuberay"),
        "app.kubernetes.io/created-by": "kuberay-operator",
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": f"{name}-head-svc", "labels": chosen, **_owned(cluster)},
        "spec": {
            "clusterIP": "None", "publishNotReadyAddresses": True, "selector": chosen,
            "ports": [{"name": one, "port": number, "appProtocol": "tcp"}
                      for one, number in sorted({METRICS: METRICS_PORT, **ports}.items())],
        },
    }  # fmt: skip


def head_pod(cluster: dict[str, Any]) -> dict[str, Any]:
    """Its name is the same each time, so it comes when the one before has gone."""
    pod = _pod(cluster, HEAD_GROUP, "head", cluster["spec"]["headGroupSpec"]["template"])
    pod["metadata"]["name"] = f"{cluster['metadata']['name'][:50]}-head"
    pod["metadata"]["annotations"][HASH] = hashed(cluster["spec"])
    pod["spec"]["containers"][0].setdefault("env", []).append({"name": "RAY_ADDRESS", "value": "127.0.0.1:6379"})
    return pod


def worker_pod(cluster: dict[str, Any], group: dict[str, Any]) -> dict[str, Any]:
    """With a container before it that waits for the head by the name of its Service."""
    pod = _pod(cluster, group["groupName"], "worker", group["template"])
    pod["metadata"]["generateName"] = f"{cluster['metadata']['name']}-{group['groupName']}"[:50] + "-worker-"
    container = pod["spec"]["containers"][0]
    address = f"{_head_name(cluster)}:6379"
    needs = {"cpu": "200m", "memory": "256Mi"}
    pod["spec"].setdefault("initContainers", []).append({
        "name": "wait-gcs-ready", "command": ["/bin/bash", "-c", "--"],
        "args": [f"until ray health-check --address {address} > /dev/null 2>&1; do sleep 5; done"],
        "resources": {"limits": needs, "requests": needs},
        **{key: container[key] for key in ("image", "imagePullPolicy", "securityContext", "env", "volumeMounts")
           if key in container},
    })  # fmt: skip
    more = {"FQ_RAY_IP": _head_name(cluster), "RAY_ADDRESS": address}
    container["env"] = [*container.get("env", []), *({"name": name, "value": told} for name, told in more.items())]
    return pod


def _pod(cluster: dict[str, Any], group: str, kind: str, template: dict[str, Any]) -> dict[str, Any]:
    """Three labels are the operator's, whatever the template says."""
    name, about, spec = cluster["metadata"]["name"], template.get("metadata", {}), copy.deepcopy(template["spec"])
    container = spec["containers"][0]
    if METRICS not in {one.get("name") for one in container.get("ports", [])}:
        container.setdefault("ports", []).append({"name": METRICS, "containerPort": METRICS_PORT})
    labels = {
        "ray.io/is-ray-node": "yes", "ray.io/identifier": f"{name}-{kind}", "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator", **about.get("labels", {}),
        "ray.io/cluster": name, "ray.io/node-type": kind, "ray.io/group": group,
    }  # fmt: skip
    made = {"labels": labels, "annotations": dict(about.get("annotations", {})), **_owned(cluster)}
    return {"apiVersion": "v1", "kind": "Pod", "spec": spec, "metadata": made}


def _owned(cluster: dict[str, Any]) -> dict[str, Any]:
    """So that it goes with the cluster; of one that no server has, nothing."""
    about = cluster["metadata"]
    if "uid" not in about:
        return {}
    owner = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "name": about["name"], "uid": about["uid"]}
    return {"ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}]}


def _head_name(cluster: dict[str, Any]) -> str:
    about = cluster["metadata"]
    return f"{about['name']}-head-svc.{about.get('namespace', 'default')}.svc.cluster.local"
