"""Wrong values, missing things, and whether what is rendered is what Kubernetes and its operators know."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from charts import CHART, CRDS, KAFKA, NO_CRDS, PROFILES, PROVIDERS, Helm, Render, profile

from deploy import chart_files

EVERYTHING = (
    "--set=registry.create=true,registry.url=,retraining.enabled=true,retraining.workers=1,kafka.tlsSecret=ca",
)

WRONG = {
    "text for a number": ("workers.cpu.replicas=many", "workers.cpu.replicas"),
    "a number below what may be": ("workers.cpu.replicas=-1", "workers.cpu.replicas"),
    "a broken number": ("ray.objectStoreBytes=1e8.5", "ray.objectStoreBytes"),
    "too little": ("ray.objectStoreBytes=1000", "ray.objectStoreBytes"),
    "text for true or false": ("networkPolicy.enabled=maybe", "networkPolicy.enabled"),
    "none of the choices": ("ray.provider=yarn", "ray.provider"),
    "a text of another form": ("registry.url=http://models", "registry.url"),
    "a name that no object may have": ("kafka.existingSecret=My_Secret", "kafka.existingSecret"),
    "a quantity that is none": ("server.resources.limits.memory=2GB", "server.resources.limits.memory"),
    "a digest that is none": ("image.digest=sha256:12", "image.digest"),
    "a schedule that is none": ("retraining.schedule=daily", "retraining.schedule"),
    "a list where there is none": ("image.pullSecrets=regcred", "image.pullSecrets"),
    "a map where there is none": ("ray.head.nodeSelector=gpu", "ray.head.nodeSelector"),
    "a value where a section is": ("metrics=true", "metrics"),
    "an unknown value": ("replicaCount=2", "replicaCount"),
    "an unknown value in a section": ("server.replicas=2", "server.*replicas"),
    "an unknown value of a group": ("workers.cpu.count=2", "workers.cpu.*count"),
    "a group's name": ("workers.Big_One.replicas=1", "Big_One"),
    "an unknown setting": ("settings.epoch.timeout=3", "settings.epoch.*timeout"),
    "a setting of another kind": ("settings.epoch.timeout_s=soon", "settings.epoch.timeout_s"),
    "a setting out of its bounds": ("settings.state.slots=1", "settings.state.slots"),
    "a pipeline's name": ("settings.pipeline=My Pipeline", "settings.pipeline"),
    "a setting that the chart makes": ("settings.fleet.ray_address=auto", "settings.fleet.*ray_address"),
    "another one": ("settings.model=/model", "settings.*model"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_value_is_refused_by_its_name(helm: Helm, what: str) -> None:
    given, named = WRONG[what]
    said = helm.refuses(*profile("small", f"--set={given}"))
    assert "schema" in said
    plain = re.sub(r"/", ".", said)  # helm 4 writes paths with slashes
    assert re.search(named.replace(".*", "(.|\n)*"), plain), said


MISSING = {
    "no Kafka": ((), "settings.kafka.bootstrap_servers: name your Kafka"),
    "two Kafkas": (("kafka.dev.enabled=true", "settings.kafka.bootstrap_servers=a:9092"), "there are two Kafkas"),
    "a secret among settings": (
        ("settings.kafka.bootstrap_servers=a:9092", "settings.kafka.sasl_plain_password=x"), "kafka.existingSecret",
    ),
    "no model": (("kafka.dev.enabled=true", "model.source=claim"), "model.name: name the claim"),
    "no registry": (("kafka.dev.enabled=true", "model.source=registry"), "needs registry.url"),
    "nowhere to train for": (("kafka.dev.enabled=true", "retraining.enabled=true"), "goes into a registry"),
    "no folder of runs": (
        ("kafka.dev.enabled=true", "retraining.enabled=true,retraining.workers=2,registry.url=s3://b/m"),
        "retraining.workers: several processes share the folder",
    ),
    "two schedules": (
        ("kafka.dev.enabled=true", "retraining.enabled=true,registry.url=s3://b/m,settings.retrain.cron=0 3 * * *"),
        "one retraining by schedule is enough",
    ),
    "no room for the shards": (("kafka.dev.enabled=true", "settings.fleet.shards=9"), "9 shards want 9 CPUs"),
    "no Strimzi cluster": (
        ("kafka.dev.enabled=true", "topicCreation.by=strimzi", "validate.crds=false"), "topicCreation.strimzi.cluster",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_said_before_anything_starts(newest: Helm, what: str) -> None:
    given, said = MISSING[what]
    assert said in newest.refuses(*(f"--set={one}" for one in given))


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("ray.provider=kuberay", "ray.io/v1/RayCluster"),
        ("metrics.podMonitor.enabled=true", "monitoring.coreos.com/v1/PodMonitor"),
        ("metrics.rules.enabled=true", "monitoring.coreos.com/v1/PrometheusRule"),
        ("topicCreation.by=strimzi", "kafka.strimzi.io/v1/KafkaTopic"),
    ],
)
def test_a_kind_that_the_cluster_lacks_is_named_with_the_remedy(helm: Helm, given: str, kind: str) -> None:
    asked = ["--set=kafka.dev.enabled=true", "--set=topicCreation.strimzi.cluster=c", f"--set={given}"]
    said = helm.refuses(*asked)
    assert f"needs the kind {kind}, which this cluster does not know: install" in said
    assert helm.template(*asked, "--api-versions", kind)
    assert helm.template(*asked, NO_CRDS)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", PROFILES)
def test_kubernetes_knows_every_field(render: Render, name: str, provider: str) -> None:
    version = kubernetes_validate.latest_version()
    seen = 0
    for one in render(name, f"--set=ray.provider={provider}", *EVERYTHING).all:
        if one["apiVersion"].partition("/")[0] not in ("ray.io", "monitoring.coreos.com"):
            kubernetes_validate.validate(one, version, strict=True)
            seen += 1
    assert seen > 8


def test_the_operators_know_every_field(render: Render) -> None:
    if not CRDS.is_dir():
        pytest.skip(f"no custom resource definitions in {CRDS}: name their folder in STREAMRNN_CRDS")
    schemas: dict[str, Any] = {}
    for file in CRDS.glob("*.yaml"):
        definition = yaml.load(file.read_text(), yaml.CSafeLoader)["spec"]
        for version in (one for one in definition["versions"] if one["storage"]):
            schema = _closed(version["schema"]["openAPIV3Schema"])
            schemas[f"{definition['group']}/{version['name']} {definition['names']['kind']}"] = schema
    objects = render("gpu", *EVERYTHING)
    job = yaml.safe_load(objects.one("ConfigMap", "-rayjob")["data"]["rayjob.json"])
    wanted = {"RayCluster", "RayJob", "PodMonitor", "PrometheusRule"}
    for one in [*objects.all, job]:
        if one["kind"] in wanted:
            jsonschema.Draft202012Validator(schemas[f"{one['apiVersion']} {one['kind']}"]).validate(one)
            wanted.remove(one["kind"])
    assert not wanted


def _closed(node: Any) -> Any:
    """A structural schema that refuses fields it does not name, as the API server does when it is strict."""
    if not isinstance(node, dict):
        return [_closed(one) for one in node] if isinstance(node, list) else node
    schema = {key: _closed(value) for key, value in node.items() if key not in ("properties", "default", "format")}
    if isinstance(properties := node.get("properties"), dict):
        schema["properties"] = {key: _closed(value) for key, value in properties.items()}
        if not node.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in node:
            schema["additionalProperties"] = False
            if "metadata" in properties and properties["metadata"] == {"type": "object"}:
                schema["properties"]["metadata"] = {"type": "object"}
    if isinstance(pattern := schema.get("pattern"), str):
        schema["pattern"] = pattern.replace("^(?i)", "(?i)^")  # Go takes flags anywhere
    if node.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    return schema


# ---- documents ------------------------------------------------------------------------------------------------------


def test_what_is_made_of_other_files_is_fresh() -> None:
    for path, content in chart_files.made().items():
        assert path.exists(), f"{path.name} is not there: make docs"
        assert path.read_text() == content, f"{path.name} is stale: make docs"
    assert not chart_files.stale(), "make docs"


def test_every_value_says_what_it_is() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    told = chart_files.documented()
    silent = [path for path in chart_files.leaves(values) if path not in told]
    assert not silent
    assert all(text.endswith((".", ".`")) for text in told.values())


def test_profiles_say_only_what_the_chart_knows(newest: Helm) -> None:
    for name in PROFILES:
        text = (CHART / "profiles" / f"{name}.yaml").read_text()
        assert text.startswith("# "), f"{name} does not say what it is for"
    assert newest.template(*profile("ha", KAFKA))
