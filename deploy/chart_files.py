"""Makes what of the chart is made of other files. Run from the checkout: python -m deploy.chart_files

- files/rules and files/dashboards: copies from deploy/prometheus and deploy/grafana: `helm package` follows no links;
- values.schema.json: of values.yaml's own shape, of `RULES` below, and of the settings model;
- the table of values in README.md: of the `# --` comments in values.yaml.

`made()` says what every file should hold; tests/helm compare.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from services.settings import Settings

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "streamrnn"
BEGIN, END = "<!-- values: made by `python -m deploy.chart_files` -->", "<!-- end of values -->"

KNOWN = {"": ("model", "registry"), "fleet": ("ray_address", "ray_node"), "retrain": ("runs",),
         "telemetry": ("host", "port")}  # fmt: skip
"""Settings that the chart itself makes: in values they are refused."""
FREE = {"type": "object"}
TEXT = {"type": "string"}
NUMBER = {"type": "integer", "minimum": 0}
YES_NO = {"type": "boolean"}
QUANTITY = r"^([0-9]+(\.[0-9]+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
AMOUNT = {"anyOf": [{"type": "string", "pattern": QUANTITY}, {"type": "number", "minimum": 0}]}
AMOUNTS = {"type": "object", "additionalProperties": AMOUNT}
TEXTS = {"type": "object", "additionalProperties": TEXT}
DNS = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"


def _object(required: str = "", **known: Any) -> dict[str, Any]:
    """With these keys and no others."""
    rest = {"required": required.split()} if required else {}
    return {"type": "object", "properties": known, "additionalProperties": False, **rest}


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _text(pattern: str, most: int = 253) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^({pattern})$", "maxLength": most}


RESOURCES = _object(requests=AMOUNTS, limits=AMOUNTS)
NAME = _text(rf"({DNS}(\.{DNS})*)?")  # a subdomain of RFC 1123, or empty
NAMED = _text(rf"{DNS}(\.{DNS})*")
LABEL = _text(f"({DNS})?", 40)
LABEL_KEY = rf"^({DNS}(\.{DNS})*/)?[A-Za-z0-9]([A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?$"
LABELS = {  # not by propertyNames, of which helm 4 says another path
    "type": "object",
    "patternProperties": {LABEL_KEY: _text("([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?", 63)},
    "additionalProperties": False,
}
SELECTOR = _object(matchLabels=LABELS, matchExpressions=_list(FREE))
BLOCK = _object("cidr", cidr=TEXT, **{"except": _list(TEXT)})
PEERS = _list({**_object(podSelector=SELECTOR, namespaceSelector=SELECTOR, ipBlock=BLOCK), "minProperties": 1})
PORTS = _list(_object(port={"type": ["integer", "string"]}, protocol={"enum": ["TCP", "UDP", "SCTP"]}, endPort=NUMBER))
TOLERATIONS = _list(
    _object(
        key=TEXT,
        operator={"enum": ["Exists", "Equal"]},
        value=TEXT,
        effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        tolerationSeconds={"type": "integer"},
    )
)
AFFINITY = _object(nodeAffinity=FREE, podAffinity=FREE, podAntiAffinity=FREE)
REFERENCES = ("configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef")
VARIABLE = {
    **_object(
        "name",
        name=_text("[A-Za-z_][A-Za-z0-9_.-]*"),
        value=TEXT,
        valueFrom={**_object(**dict.fromkeys(REFERENCES, FREE)), "minProperties": 1, "maxProperties": 1},
    ),
    "minProperties": 2,
    "maxProperties": 2,
}
VOLUMES = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "configMap", "csi", "downwardAPI", "emptyDir",
    "ephemeral", "fc", "flexVolume", "gcePersistentDisk", "glusterfs", "hostPath", "image", "iscsi", "nfs",
    "persistentVolumeClaim", "portworxVolume", "projected", "rbd", "secret", "vsphereVolume",
)  # fmt: skip
VOLUME = {
    **_object("name", name=_text(DNS, 63), **dict.fromkeys(VOLUMES, FREE)),
    "minProperties": 2,
    "maxProperties": 2,
}
MOUNT = _object(
    "name mountPath", name=_text(DNS, 63), mountPath=_text("/.+", 4096), subPath=TEXT, subPathExpr=TEXT,
    readOnly=YES_NO, recursiveReadOnly=TEXT, mountPropagation=TEXT,
)  # fmt: skip
CONFINED = {"enum": ["RuntimeDefault", "Localhost", "Unconfined"]}
POD_SECURITY = _object(
    runAsNonRoot=YES_NO, runAsUser=NUMBER, runAsGroup=NUMBER, fsGroup=NUMBER, supplementalGroups=_list(NUMBER),
    fsGroupChangePolicy={"enum": ["OnRootMismatch", "Always"]}, supplementalGroupsPolicy={"enum": ["Merge", "Strict"]},
    seccompProfile=_object("type", type=CONFINED, localhostProfile=TEXT),
    appArmorProfile=_object("type", type=CONFINED, localhostProfile=TEXT),
    seLinuxOptions=_object(level=TEXT, role=TEXT, type=TEXT, user=TEXT), seLinuxChangePolicy=TEXT,
    sysctls=_list(_object("name value", name=TEXT, value=TEXT)),
)  # fmt: skip
HEADGROUP = "another name: KubeRay calls the head's own group headgroup, and would count the head as its worker"
PATH = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"  # a part of an image's name


RULES: dict[str, Any] = {
    "nameOverride": LABEL,
    "fullnameOverride": LABEL,
    "commonLabels": LABELS,
    "image.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.repository": _text(rf"([A-Za-z0-9.-]+(:[0-9]+)?/)?{PATH}(/{PATH})*"),
    "image.tag": _text("([A-Za-z0-9_][A-Za-z0-9_.-]*)?", 128),
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.pullSecrets": _list(_object("name", name=NAMED)),
    "kafka.existingSecret": NAME,
    "kafka.secretKeys": {"type": "array", "items": {"type": "string", "pattern": "^[a-z0-9_]+$"}},
    "kafka.tlsSecret": NAME,
    "kafka.dev.allowFrom": PEERS,
    "kafka.dev.storage.size": {"type": "string", "pattern": f"^$|{QUANTITY}"},
    "topicCreation.by": {"enum": ["job", "strimzi", "none"]},
    "topicCreation.existingSecret": NAME,
    "topicCreation.strimzi.cluster": NAME,
    "topicCreation.strimzi.namespace": LABEL | {"maxLength": 63},
    "topicCreation.strimzi.replicas": {"type": "integer", "minimum": 1},
    "model.source": {"enum": ["example", "configMap", "claim", "registry"]},
    "model.name": NAME,
    "model.path": {"type": "string", "pattern": "^([^/].*)?$"},
    "registry.url": {"type": "string", "pattern": "^(|(s3|s3a|gs|gcs|abfs|abfss|az)://.+)$"},
    "registry.existingSecret": NAME,
    "registry.existingClaim": NAME,
    "registry.size": {"type": "string", "pattern": QUANTITY},
    "registry.accessMode": {"enum": ["ReadWriteMany", "ReadWriteOnce"]},
    "ray.provider": {"enum": ["builtin", "kuberay"]},
    "ray.operatorNamespace": LABEL | {"maxLength": 63},
    "ray.auth.existingSecret": NAME,
    "ray.objectStoreBytes": {"type": "integer", "minimum": 78643200},
    "workerDefaults.cpus": {"type": "integer", "minimum": 1},
    "retraining.schedule": _text(r"\S+( +\S+){4}"),
    "metrics.podMonitor.labels": LABELS,
    "metrics.podMonitor.interval": {"type": "string", "pattern": "^[1-9][0-9]*(ms|s|m)$"},
    "metrics.rules.labels": LABELS,
    "metrics.dashboards.labels": LABELS,
    "metrics.dashboards.annotations": TEXTS,
    "serviceAccount.name": NAME,
    "serviceAccount.annotations": TEXTS,
    "networkPolicy.metricsFrom": PEERS,
    "networkPolicy.egress": _list(_object(to=PEERS, ports=PORTS)),
    "podSecurityContext": POD_SECURITY,
    "scratchSize": {"type": "string", "pattern": QUANTITY},
    "extraEnv": _list(VARIABLE),
    "extraVolumes": _list(VOLUME),
    "extraVolumeMounts": _list(MOUNT),
    "test.timeoutSeconds": {"type": "integer", "minimum": 1},
}
BY_NAME = {
    "resources": RESOURCES, "nodeSelector": LABELS, "tolerations": TOLERATIONS, "affinity": AFFINITY,
    "priorityClassName": NAME, "runtimeClassName": NAME, "className": NAME,
}  # fmt: skip


def made() -> dict[Path, str]:
    """Path -> content of every file that is made, and of none that is not."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    files = {CHART / "values.schema.json": json.dumps(_schema(values), indent=2) + "\n"}
    files[CHART / "files" / "rules" / "rules.yaml"] = (ROOT / "deploy" / "prometheus" / "rules.yaml").read_text()
    for board in sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")):
        files[CHART / "files" / "dashboards" / board.name] = board.read_text()
    readme = (CHART / "README.md").read_text()
    before, _, rest = readme.partition(BEGIN)
    files[CHART / "README.md"] = f"{before}{BEGIN}\n\n{_table()}\n\n{END}{rest.partition(END)[2]}"
    return files


def stale() -> list[str]:
    """Copies whose originals are gone."""
    files = made()
    there = [*(CHART / "files" / "rules").iterdir(), *(CHART / "files" / "dashboards").iterdir()]
    return [str(path) for path in there if path not in files]


# ---- schema ---------------------------------------------------------------------------------------------------------


def _schema(values: dict[str, Any]) -> dict[str, Any]:
    schema = _of(values, "")
    group = schema["properties"]["workerDefaults"]
    schema["properties"]["workers"] = {
        "type": "object",
        "properties": {"headgroup": {"const": HEADGROUP}},  # helm says it
        "patternProperties": {"^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$": group},
        "additionalProperties": False,
    }
    schema["properties"]["settings"] = _settings()
    schema["properties"]["global"] = FREE  # Helm adds it
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of streamrnn", **schema}


def _of(value: Any, path: str) -> dict[str, Any]:
    if path in RULES:
        return RULES[path]
    if path.rpartition(".")[2] in BY_NAME:
        return BY_NAME[path.rpartition(".")[2]]
    if isinstance(value, dict):
        inner = {key: _of(one, f"{path}.{key}".lstrip(".")) for key, one in value.items() if path or key != "settings"}
        return {"type": "object", "properties": inner, "additionalProperties": False}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": 0}
    if isinstance(value, str):
        return {"type": "string"}
    raise TypeError(f"deploy/chart_files.py: say in RULES what {path} may be")


def _settings() -> dict[str, Any]:
    """The settings model's own schema, sections in place, without what the chart itself makes."""
    whole = Settings.model_json_schema()
    for key in KNOWN[""]:
        whole["properties"].pop(key)
    for section, keys in KNOWN.items():
        if section:
            definition = whole["$defs"][whole["properties"][section]["$ref"].rpartition("/")[2]]
            for key in keys:
                definition["properties"].pop(key)
    return _inlined({**whole, "required": ["pipeline"]}, whole["$defs"])


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(one, definitions) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
    inlined = {}
    for key, value in node.items():
        if key == "properties":
            inlined[key] = {name: _inlined(one, definitions) for name, one in value.items()}
        elif key not in ("$defs", "title", "default", "format"):
            inlined[key] = _inlined(value, definitions)
    return inlined


# ---- table ----------------------------------------------------------------------------------------------------------


def documented() -> dict[str, str]:
    """Key -> what its `# --` comment says."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    said: list[str] = []
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("# --"):
            said = [text[4:].strip()]
        elif text.startswith("#") and said:
            said.append(text[1:].strip())
        elif key := re.match(r"( *)([A-Za-z]+):", line):
            indent = len(key[1])
            path = [*(one for one in path if one[0] < indent), (indent, key[2])]
            if said:
                found[".".join(name for _, name in path)] = " ".join(said)
            said = []
        else:
            said = []
    return found


def leaves(values: dict[str, Any], under: str = "") -> dict[str, Any]:
    """Key -> default of everything that is documented, or that nothing above documents."""
    told, found = documented(), {}
    for key, value in values.items():
        path = f"{under}.{key}".lstrip(".")
        inner = isinstance(value, dict) and value and path not in told
        found |= leaves(value, path) if inner else {path: value}
        if isinstance(value, dict) and any(one.startswith(f"{path}.") for one in told) and path in told:
            found |= leaves(value, path)
    return found


def _table() -> str:
    told, values = documented(), yaml.safe_load((CHART / "values.yaml").read_text())
    rows = ["| value | default | |", "|---|---|---|"]
    for path, default in leaves(values).items():
        shown = json.dumps(default)
        rows.append(f"| `{path}` | {'' if len(shown) > 70 else f'`{shown}`'} | {told.get(path, '')} |")
    return "\n".join(rows)


def main() -> None:
    """Writes all of them."""
    files = made()
    for path in stale():
        Path(path).unlink()
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
