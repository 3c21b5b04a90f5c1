"""A Prometheus on the node of a cluster that scrapes what PodMonitors of the cluster ask for.

What the Prometheus operator makes of a PodMonitor: pods of its namespace with its labels and a container port of that
name, then the PodMonitor's own relabelings. Debian's Prometheus is built without Kubernetes' discovery: every port of
every pod there is given to it as a target, with the labels that the discovery would have given.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from one_node import OneNode
from scraping import Server

PORT = 9099  # on the node, whose network is its own


class Monitored:
    """Of the PodMonitors and PrometheusRules of a namespace, looked up once. Use as a context manager."""

    def __init__(self, node: OneNode, namespace: str, folder: Path) -> None:
        self.node = node
        rules = [group for one in node.get("prometheusrules", namespace) for group in one["spec"]["groups"]]
        (folder / "rules.yaml").write_text(
            yaml.safe_dump({"groups": [{**one, "interval": "1s"} for one in _once(rules)]})
        )
        targets = [one for pod in node.get("pods", namespace) for one in _targets(pod)]
        config = {
            "global": {"evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                _scrape(monitor, endpoint, targets)
                for monitor in node.get("podmonitors", namespace)
                for endpoint in monitor["spec"]["podMetricsEndpoints"]
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self._server = Server(folder, PORT, node.command, node.environment())

    def __enter__(self) -> Monitored:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def ask(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of /api/v1; None while there is none."""
        call = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1], timeout=20).read().decode())"
        query = "&".join(f"{name}={_quoted(value)}" for name, value in parameters.items())
        url = f"http://127.0.0.1:{PORT}/api/v1/{path}?{query}"
        self._server.check()
        done = self.node.run(sys.executable, "-c", call, url, check=False)
        return json.loads(done.stdout)["data"] if done.returncode == 0 else None

    def now(self, query: str) -> list[dict[str, Any]]:
        """Samples of the query at this moment, with their labels."""
        found = self.ask("query", query=query)
        return [] if found is None else list(found["result"])


def _quoted(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", lambda one: f"%{ord(one.group()):02X}", text)


def _once(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two releases bring the same rules."""
    return list({one["name"]: one for one in groups}.values())


def _targets(pod: dict[str, Any]) -> list[dict[str, Any]]:
    about, address = pod["metadata"], pod["status"].get("podIP", "")
    labels = {f"pod_label_{re.sub(r'[^A-Za-z0-9_]', '_', name)}": value for name, value in about["labels"].items()}
    labels |= {"namespace": about["namespace"], "pod_name": about["name"]}
    ports = [(one["name"], port) for one in pod["spec"]["containers"] for port in one.get("ports", [])]
    return [
        {"targets": [f"{address}:{port['containerPort']}"],
         "labels": {f"__meta_kubernetes_{name}": value for name, value in
                    {**labels, "pod_container_name": of, "pod_container_port_name": port.get("name", "")}.items()}}
        for of, port in ports if address
    ]  # fmt: skip


def _scrape(monitor: dict[str, Any], endpoint: dict[str, Any], targets: list[dict[str, Any]]) -> dict[str, Any]:
    about, spec = monitor["metadata"], monitor["spec"]
    relabelings: list[dict[str, Any]] = [
        {"source_labels": [f"__meta_kubernetes_pod_label_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"],
         "regex": re.escape(value).replace("\\-", "-"), "action": "keep"}
        for name, value in spec["selector"]["matchLabels"].items()
    ]  # fmt: skip
    relabelings.append(
        {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": endpoint["port"], "action": "keep"}
    )
    for source, label in (("namespace", "namespace"), ("pod_container_name", "container"), ("pod_name", "pod")):
        relabelings.append({"source_labels": [f"__meta_kubernetes_{source}"], "target_label": label})
    relabelings.append({"target_label": "job", "replacement": f"{about['namespace']}/{about['name']}"})
    relabelings += [
        {re.sub(r"[A-Z]", lambda one: f"_{one.group().lower()}", name): value for name, value in one.items()}
        for one in endpoint.get("relabelings", [])
    ]
    return {
        "job_name": f"podMonitor/{about['namespace']}/{about['name']}",
        "scrape_interval": endpoint.get("interval", "30s"),
        "scrape_timeout": endpoint.get("scrapeTimeout", endpoint.get("interval", "10s")),
        "metrics_path": endpoint.get("path", "/metrics"),
        "static_configs": targets,
        "relabel_configs": relabelings,
    }
