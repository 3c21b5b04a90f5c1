"""The chart as an operator's helm renders it: both helms, every profile, both ways to get Ray."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from binaries import helm3, helm4

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "streamrnn"
PROFILES = ("small", "gpu", "ha")
PROVIDERS = ("builtin", "kuberay")
KAFKA = "--set=settings.kafka.bootstrap_servers=kafka:9092"
NO_CRDS = "--set=validate.crds=false"
OPERATOR = "--set=ray.operatorNamespace=kuberay"
EVERYBODY = '--set-json=networkPolicy.metricsFrom=[{"namespaceSelector":{}}]'
CRDS = Path(os.environ.get("STREAMRNN_CRDS", ROOT.parent / "shared" / "crds"))


@dataclass(frozen=True)
class Helm:
    """One helm."""

    name: str
    program: Path

    def __call__(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs it, without a cluster and without anybody's configuration."""
        env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"}
        return subprocess.run(
            [self.program, *args], capture_output=True, text=True, env=env, check=False
        )  # fmt: skip

    def template(self, *args: str, release: str = "r") -> list[dict[str, Any]]:
        """What would be installed. Fails with helm's words."""
        done = self("template", release, CHART, "--namespace", "ns", *args)
        assert done.returncode == 0, done.stderr
        return [one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one]

    def refuses(self, *args: str) -> str:
        """The words with which it refuses."""
        done = self("template", "r", CHART, "--namespace", "ns", *args)
        assert done.returncode != 0, "it was accepted"
        return done.stderr


@cache
def helm_named(name: str) -> Helm:
    return Helm(name, Path(helm3() if name == "helm3" else helm4()))


def profile(name: str, *more: str) -> list[str]:
    """Arguments that make a profile render anywhere."""
    given = ["-f", str(CHART / "profiles" / f"{name}.yaml"), NO_CRDS, OPERATOR]
    return [*given, *([] if name == "small" else [KAFKA]), *more]


@dataclass(frozen=True)
class Objects:
    """Rendered objects, to look into."""

    all: list[dict[str, Any]]

    def one(self, kind: str, name: str = "") -> dict[str, Any]:
        """The object of a kind whose name ends so."""
        found = [one for one in self.all if one["kind"] == kind and one["metadata"]["name"].endswith(name)]
        assert len(found) == 1, [f"{one['kind']} {one['metadata']['name']}" for one in self.all]
        return found[0]

    def kinds(self) -> set[str]:
        """Which kinds there are."""
        return {one["kind"] for one in self.all}

    def pods(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Kind and name of the object that makes the pod, and the pod's template, RayJobs in ConfigMaps included."""
        for one in self.all:
            where = f"{one['kind']} {one['metadata'].get('name', one['metadata'].get('generateName'))}"
            for path, template in _templates(one):
                yield f"{where}{path}", template
            if one["kind"] == "ConfigMap" and "rayjob.json" in one["data"]:
                for path, template in _templates(json.loads(one["data"]["rayjob.json"])):
                    yield f"{where}{path}", template

    def settings(self) -> dict[str, Any]:
        """The settings file that the server reads."""
        return yaml.safe_load(self.one("ConfigMap", "-settings")["data"]["streamrnn.yaml"])


def _templates(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if isinstance(node.get("spec"), dict) and "containers" in node["spec"]:
            yield path, node
        else:
            for key, inner in node.items():
                yield from _templates(inner, f"{path}.{key}")
    elif isinstance(node, list):
        for number, inner in enumerate(node):
            yield from _templates(inner, f"{path}[{number}]")


Render = Callable[..., Objects]
