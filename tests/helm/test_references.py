"""Secrets, ConfigMaps and claims that values name, looked up in an API server which has only those of a test."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from charts import CHART, Helm, profile

KINDS = {"secrets": "Secret", "configmaps": "ConfigMap", "persistentvolumeclaims": "PersistentVolumeClaim",
         "serviceaccounts": "ServiceAccount"}  # fmt: skip


class Cluster:
    """An API server of four kinds, as much as `lookup` asks of one."""

    def __init__(self, folder: Path) -> None:
        self.there: dict[tuple[str, str], dict[str, Any]] = {}
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = cluster.answer(self.path.partition("?")[0])
                body = json.dumps(found or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                                            "reason": "NotFound", "message": "not found"}).encode()  # fmt: skip
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.config = folder / "config"
        where = f"http://127.0.0.1:{self.server.server_port}"
        self.config.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "a", "cluster": {"server": where}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "users": [{"name": "a", "user": {"token": "none"}}],
        }))  # fmt: skip

    def put(self, kind: str, name: str, **data: Any) -> None:
        self.there[kind, name] = data

    def answer(self, path: str) -> dict[str, Any] | None:
        if path == "/version":
            return {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        if path == "/apis":
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
        if path == "/api/v1":
            kinds = [{"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "list"]}
                     for name, kind in KINDS.items()]  # fmt: skip
            return {"kind": "APIResourceList", "groupVersion": "v1", "resources": kinds}
        kind, name = path.split("/")[-2:]
        if (found := self.there.get((KINDS.get(kind, ""), name))) is None:
            return None
        return {"apiVersion": "v1", "kind": KINDS[kind], "metadata": {"name": name, "namespace": "ns"}, **found}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.put("ServiceAccount", "default")
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


def said(helm: Helm, cluster: Cluster, *given: str) -> str:
    """What helm says where it may look. Empty: it renders, and only then misses the kinds that this server lacks."""
    asked = [
        "template",
        "r",
        CHART,
        "--namespace",
        "ns",
        "--dry-run=server",
        "--disable-openapi-validation",
        "--kubeconfig",
        cluster.config,
    ]
    done: subprocess.CompletedProcess[str] = helm(*asked, *profile("small"), *(f"--set={one}" for one in given))
    rendered = done.returncode == 0 or "unable to build kubernetes objects from release manifest" in done.stderr
    return "" if rendered else done.stderr


CREDS = ("sasl_plain_username", "sasl_plain_password")
FILES = ("card.json", "model.safetensors")
NAMED: dict[str, tuple[str, tuple[str, ...], str, tuple[str, ...]]] = {
    "kafka.existingSecret": ("kafka.existingSecret=it", (), "Secret", CREDS),
    "kafka.tlsSecret": ("kafka.tlsSecret=it", (), "Secret", ()),
    "topicCreation.existingSecret": ("topicCreation.existingSecret=it", (), "Secret", CREDS),
    "registry.existingSecret": ("registry.existingSecret=it", (), "Secret", ()),
    "ray.auth.existingSecret": ("ray.auth.existingSecret=it", (), "Secret", ("auth_token",)),
    "image.pullSecrets": ("image.pullSecrets[0].name=it", (), "Secret", ()),
    "registry.existingClaim": ("registry.existingClaim=it", (), "PersistentVolumeClaim", ()),
    "model.name": ("model.name=it", ("model.source=configMap",), "ConfigMap", FILES),
    "model.name ": ("model.name=it", ("model.source=claim",), "PersistentVolumeClaim", ()),
}


@pytest.mark.parametrize("value", NAMED)
def test_what_is_named_must_be_there_with_its_keys(newest: Helm, cluster: Cluster, value: str) -> None:
    given, more, kind, keys = NAMED[value]
    told = said(newest, cluster, given, *more)
    assert f'{value.strip()}: there is no {kind} "it" in namespace ns; make it first' in told
    assert said(newest, cluster, given, *more, "validate.references=false") == ""
    word = base64.b64encode(b"x").decode()
    for count, key in enumerate(keys):
        cluster.put(kind, "it", data=dict.fromkeys(keys[:count], word))
        assert f'{value.strip()}: {kind} "it" has no key "{key}"' in said(newest, cluster, given, *more)
    cluster.put(kind, "it", data=dict.fromkeys(keys, word))
    assert said(newest, cluster, given, *more) == ""


def test_a_models_weights_may_be_binary_data(newest: Helm, cluster: Cluster) -> None:
    cluster.put("ConfigMap", "it", data={"card.json": "{}"}, binaryData={"model.safetensors": "eA=="})
    assert said(newest, cluster, "model.source=configMap", "model.name=it") == ""


def test_what_is_not_used_need_not_be_there(newest: Helm, cluster: Cluster) -> None:
    for given in (
        ("ray.auth.enabled=false", "ray.auth.existingSecret=it"),
        ("topicCreation.by=none", "topicCreation.existingSecret=it"),
        ("model.source=example", "model.name=it"),
    ):
        assert said(newest, cluster, *given) == ""
