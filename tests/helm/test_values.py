"""Wrong values, missing things, and whether what is rendered is what Kubernetes and its operators know."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from charts import CHART, CRDS, EVERYBODY, KAFKA, NO_CRDS, PROFILES, PROVIDERS, Helm, Render, profile

from deploy import chart_files

EVERYTHING = (
    "--set=registry.create=true,registry.url=,retraining.enabled=true,retraining.workers=1,kafka.tlsSecret=ca",
)

OPERATORS = ("ray.io", "monitoring.coreos.com", "kafka.strimzi.io")

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
    "a group's name": ("workers.Big_One.replicas=1", "workers.*Big_One"),
    "the name of KubeRay's own group": (
        "workers.headgroup.replicas=1",
        "workers.headgroup(.|\n)*another name: KubeRay",
    ),
    "an unknown setting": ("settings.epoch.timeout=3", "settings.epoch.*timeout"),
    "a setting of another kind": ("settings.epoch.timeout_s=soon", "settings.epoch.timeout_s"),
    "a setting out of its bounds": ("settings.state.slots=1", "settings.state.slots"),
    "a pipeline's name": ("settings.pipeline=My Pipeline", "settings.pipeline"),
    "a setting that the chart makes": ("settings.fleet.ray_address=auto", "settings.fleet.*ray_address"),
    "another one": ("settings.model=/model", "settings.*model"),
    "a user by name": ("podSecurityContext.runAsUser=root", "podSecurityContext.runAsUser"),
    "an unknown key of a pod's security": ("podSecurityContext.privileged=true", "podSecurityContext.*privileged"),
    "an unknown key of an affinity": ('server.affinity={"nodeAffinitiy":{}}', "server.affinity.*nodeAffinitiy"),
    "an unknown key of a toleration": ('ray.head.tolerations=[{"keys":"gpu"}]', "ray.head.tolerations.0.*keys"),
    "an effect that is none": ('workers.gpu.tolerations=[{"effect":"Never"}]', "workers.gpu.tolerations.0.effect"),
    "seconds of a toleration": (
        'server.tolerations=[{"tolerationSeconds":"5s"}]',
        "server.tolerations.0.tolerationSeconds",
    ),
    "a secret for images without a name": ('image.pullSecrets=[{"secret":"regcred"}]', "image.pullSecrets.0"),
    "a secret for images with more": ('image.pullSecrets=[{"name":"a","key":"b"}]', "image.pullSecrets.0.*key"),
    "an unknown peer": ('networkPolicy.metricsFrom=[{"podSelectors":{}}]', "networkPolicy.metricsFrom.0.*podSelectors"),
    "a peer that is nobody": ("networkPolicy.metricsFrom=[{}]", "networkPolicy.metricsFrom.0"),
    "an address without a range": ('kafka.dev.allowFrom=[{"ipBlock":{}}]', "kafka.dev.allowFrom.0.ipBlock.*cidr"),
    "an unknown key of egress": ('networkPolicy.egress=[{"from":[]}]', "networkPolicy.egress.0.*from"),
    "a volume without a name": ('extraVolumes=[{"emptyDir":{}}]', "extraVolumes.0.*name"),
    "a volume of no kind": ('extraVolumes=[{"name":"a","pvc":{}}]', "extraVolumes.0.*pvc"),
    "a mount without a path": ('extraVolumeMounts=[{"name":"a"}]', "extraVolumeMounts.0.*mountPath"),
    "a variable without a name": ('extraEnv=[{"value":"1"}]', "extraEnv.0.*name"),
    "a variable without a value": ('extraEnv=[{"name":"A"}]', "extraEnv.0"),
    "a variable with two": ('extraEnv=[{"name":"A","value":"1","valueFrom":{"fieldRef":{}}}]', "extraEnv.0"),
    "a variable with something else": ('extraEnv=[{"name":"A","val":"1"}]', "extraEnv.0.*val"),
    "a variable that is a number": ('extraEnv=[{"name":"A","value":1}]', "extraEnv.0.value"),
    "a tag that is none": ("image.tag=a:b", "image.tag"),
    "a repository with a tag": ("image.repository=docker.io/acme/streamrnn:1", "image.repository"),
    "a repository that is a URL": ("image.repository=https://acme/streamrnn", "image.repository"),
    "a priority class that is none": ("server.priorityClassName=High_Priority", "server.priorityClassName"),
    "a runtime class that is none": ("workers.gpu.runtimeClassName=Nvidia", "workers.gpu.runtimeClassName"),
    "a storage class that is none": ("kafka.dev.storage.className=my class", "kafka.dev.storage.className"),
    "another storage class that is none": ("registry.className=-fast", "registry.className"),
    "a node label that is none": ('ray.head.nodeSelector={"gpu type":"a"}', "ray.head.nodeSelector.*gpu type"),
    "a node label's value that is none": ('ray.head.nodeSelector={"gpu":"a b"}', "ray.head.nodeSelector.gpu"),
    "a label's value that is none": ('commonLabels={"team":"data and more"}', "commonLabels.team"),
    "a folder outside the volume": ("model.path=/model", "model.path"),
    "six fields": ("retraining.schedule=0 0 3 * * *", "retraining.schedule"),
    "an interval of nothing": ("metrics.podMonitor.interval=0s", "metrics.podMonitor.interval"),
    "a Strimzi cluster that is none": ("topicCreation.strimzi.cluster=Main", "topicCreation.strimzi.cluster"),
}
RIGHT = (
    'commonLabels={"team":"data","acme.io/cost-centre":"12"}',
    "podSecurityContext.runAsUser=null", 'podSecurityContext.supplementalGroups=[44]',
    'server.affinity={"nodeAffinity":{}}', 'ray.head.tolerations=[{"operator":"Exists"}]',
    'server.tolerations=[{"key":"a","operator":"Equal","value":"b","effect":"NoExecute","tolerationSeconds":60}]',
    'image.pullSecrets=[{"name":"reg.cred"}]', "image.repository=localhost:5000/acme/stream-rnn", "image.tag=v1.2_3-x",
    'networkPolicy.metricsFrom=[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}]',
    'networkPolicy.egress=[{"to":[{"podSelector":{}}],"ports":[{"port":9092,"protocol":"TCP"}]}]',
    'extraVolumes=[{"name":"a","persistentVolumeClaim":{"claimName":"c"}}]',
    'extraVolumeMounts=[{"name":"a","mountPath":"/a","subPath":"b","readOnly":true}]',
    'extraEnv=[{"name":"A","value":""},{"name":"B","valueFrom":{"secretKeyRef":{"name":"a","key":"b"}}}]',
    "server.priorityClassName=system-cluster-critical", "registry.className=a.b-c", "model.path=a/b..c",
    "retraining.schedule=*/15 0-6,22 1,15 JAN-mar Mon-fri", "retraining.schedule=59 23 31 12 0", "model.path=",
    "metrics.podMonitor.interval=10s",
)  # fmt: skip


def given_by(text: str) -> str:
    """The argument that gives a value; `--set` knows no maps and no fractions."""
    value = text.partition("=")[2]
    return f"--set-json={text}" if re.match(r"[\[{]|[0-9]+\.[0-9]+$", value) else f"--set={text}"


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_value_is_refused_by_its_name(helm: Helm, what: str) -> None:
    given, named = WRONG[what]
    said = helm.refuses(*profile("small", given_by(given)))
    assert "schema" in said
    plain = re.sub(r"/", ".", said)  # helm 4 writes paths with slashes
    assert re.search(named.replace(".*", "(.|\n)*"), plain), said


@pytest.mark.parametrize("given", RIGHT)
def test_what_kubernetes_takes_is_let_through(newest: Helm, given: str) -> None:
    assert newest.template(*profile("small", given_by(given.replace(",", r"\,") if given[-1] not in "]}" else given)))


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
    "no GPU at all": (
        ("kafka.dev.enabled=true", "settings.fleet.gpus_per_shard=1"),
        "2 shards want 1 GPUs each and the groups of `workers` give 0 GPUs, room for 0 shards",
    ),
    "too few GPUs": (
        ("kafka.dev.enabled=true", "settings.fleet.gpus_per_shard=0.6", "workers.gpu.replicas=1"),
        "2 shards want 0.6 GPUs each and the groups of `workers` give 1 GPUs, room for 1 shards",
    ),
    "too few GPUs in a pod": (
        ("kafka.dev.enabled=true", "settings.fleet.gpus_per_shard=2,workers.gpu.replicas=2,workers.gpu.gpus=3",
         "settings.fleet.shards=3"),
        "3 shards want 2 GPUs each and the groups of `workers` give 6 GPUs, room for 2 shards",
    ),
    "a shard without a partition": (
        ("kafka.dev.enabled=true", "settings.fleet.shards=3,settings.topics.partitions=2"),
        "settings.fleet.shards: 3 shards share 2 partitions",
    ),
    "no time to leave": (
        ("kafka.dev.enabled=true", "server.terminationGracePeriodSeconds=20"),
        "server.terminationGracePeriodSeconds: in 20 s an epoch that may take 30 s",
    ),
    "a label of the chart's own": (
        ("kafka.dev.enabled=true", 'commonLabels={"app.kubernetes.io/name":"x"}'),
        "commonLabels: app.kubernetes.io/name is a label of the chart's own",
    ),
    "another one of its own": (
        ("kafka.dev.enabled=true", 'commonLabels={"helm.sh/chart":"x"}'), "commonLabels: helm.sh/chart is",
    ),
    "a folder above the volume": (("kafka.dev.enabled=true", "model.path=a/../../b"), 'model.path: "a/../../b" leaves'),
    **{
        what: (("kafka.dev.enabled=true", f"retraining.schedule={given}"), f"retraining.schedule: {said}")
        for what, given, said in (
            ("a minute that no hour has", "61 * * * *", '"61" is no minute: give 0 to 59'),
            ("an hour that no day has", "0 24 * * *", '"24" is no hour: give 0 to 23'),
            ("a day that no month has", "0 3 32 * *", '"32" is no day of the month: give 1 to 31'),
            ("a month that no year has", "0 3 * 13 *", '"13" is no month: give 1 to 12'),
            ("a day that no week has", "0 3 * * 7", '"7" is no day of the week: give 0 to 6'),
            ("a step of nothing", "*/0 * * * *", '"*/0" is no minute'),
        )
    },
    "a name that no Service may have": (
        ("kafka.dev.enabled=true", "fullnameOverride=1st"), 'fullnameOverride: objects would be named "1st"',
    ),
    "an operator that no policy lets in": (
        ("kafka.dev.enabled=true", "ray.provider=kuberay,retraining.enabled=true,registry.url=s3://b/m",
         "validate.crds=false"),
        "ray.operatorNamespace: KubeRay's operator asks the Ray of a retraining how it goes",
    ),
    "a Prometheus that no policy lets in": (
        ("kafka.dev.enabled=true", "metrics.podMonitor.enabled=true,validate.crds=false"),
        "metrics.podMonitor.enabled: networkPolicy.metricsFrom lets nobody in",
    ),
    "no Strimzi cluster": (
        ("kafka.dev.enabled=true", "topicCreation.by=strimzi", "validate.crds=false"), "topicCreation.strimzi.cluster",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_said_before_anything_starts(newest: Helm, what: str) -> None:
    given, said = MISSING[what]
    assert said in newest.refuses(*map(given_by, given))


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
    asked = ["--set=kafka.dev.enabled=true", "--set=topicCreation.strimzi.cluster=c", f"--set={given}", EVERYBODY]
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
        if one["apiVersion"].partition("/")[0] not in OPERATORS:
            kubernetes_validate.validate(one, version, strict=True)
            seen += 1
    assert seen > 8


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("digits", ["2024", "1e3", "true"])
def test_names_that_yaml_would_read_as_something_else_stay_text(newest: Helm, provider: str, digits: str) -> None:
    names = (
        "settings.pipeline", "nameOverride", "kafka.existingSecret", "kafka.tlsSecret", "registry.existingSecret",
        "registry.existingClaim", "ray.auth.existingSecret", "topicCreation.existingSecret", "model.name", "model.path",
        "server.priorityClassName", "workerDefaults.runtimeClassName", "kafka.dev.storage.className",
        "kafka.secretKeys[0]", "image.tag", "image.pullSecrets[0].name", "metrics.cluster",
        *(f"settings.topics.{one}" for one in ("readings", "predictions", "changelog")),
    )  # fmt: skip
    more = ["--set=retraining.enabled=true,model.source=claim", "--set-string=kafka.dev.storage.size=10",
            "--namespace=2024",
            f"--set=metrics.podMonitor.enabled=true,metrics.rules.enabled=true,ray.provider={provider}", EVERYBODY,
            "--set=workers.true.replicas=1,fullnameOverride=r",
            *(f"--set-string={name}={digits}" for name in names)]  # fmt: skip
    objects = newest.template(*profile("small", *more), release=digits)
    _validated(objects)
    _validated(newest.template(*profile("small", *more, "--set-string=fullnameOverride=true"), release="r"))
    assert any(one["kind"] == ("RayCluster" if provider == "kuberay" else "StatefulSet") for one in objects)
    server = next(one for one in objects if one["metadata"]["name"] == "r-server" and one["kind"] == "Deployment")
    labels = server["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/instance"] == labels["streamrnn.io/pipeline"] == digits
    strimzi = ["--set=topicCreation.by=strimzi", f"--set-string=topicCreation.strimzi.cluster={digits}"]
    strimzi.append(f"--set-string=topicCreation.strimzi.namespace={digits}")
    for one in newest.template(*profile("small", *more, *strimzi), release=digits):
        if one["kind"] == "KafkaTopic":
            assert one["metadata"]["namespace"] == one["metadata"]["labels"]["strimzi.io/cluster"] == digits
            assert isinstance(one["spec"]["topicName"], str)


def _validated(objects: list[dict[str, Any]]) -> None:
    """All that are Kubernetes' own by its schemas, and the others as far as text must be text."""
    version = kubernetes_validate.latest_version()
    for one in objects:
        about = one["metadata"]
        assert all(isinstance(about.get(key, ""), str) for key in ("name", "namespace")), about
        assert all(isinstance(value, str) for value in about["labels"].values()), about
        group = one["apiVersion"].partition("/")[0]
        if group not in OPERATORS:
            kubernetes_validate.validate(one, version, strict=True)
        elif CRDS.is_dir() and f"{one['apiVersion']} {one['kind']}" in _known():
            jsonschema.Draft202012Validator(_known()[f"{one['apiVersion']} {one['kind']}"]).validate(one)


def test_the_operators_know_every_field(render: Render) -> None:
    if not CRDS.is_dir():
        pytest.skip(f"no custom resource definitions in {CRDS}: name their folder in STREAMRNN_CRDS")
    schemas = _known()
    objects = render("gpu", *EVERYTHING)
    job = yaml.safe_load(objects.one("ConfigMap", "-rayjob")["data"]["rayjob.json"])
    wanted = {"RayCluster", "RayJob", "PodMonitor", "PrometheusRule"}
    for one in [*objects.all, job]:
        if one["kind"] in wanted:
            jsonschema.Draft202012Validator(schemas[f"{one['apiVersion']} {one['kind']}"]).validate(one)
            wanted.remove(one["kind"])
    assert not wanted


@cache
def _known() -> dict[str, Any]:
    """apiVersion and kind -> schema, of the custom resources at hand."""
    schemas: dict[str, Any] = {}
    for file in CRDS.glob("*.yaml"):
        definition = yaml.load(file.read_text(), yaml.CSafeLoader)["spec"]
        for version in (one for one in definition["versions"] if one["storage"]):
            schema = _closed(version["schema"]["openAPIV3Schema"])
            schemas[f"{definition['group']}/{version['name']} {definition['names']['kind']}"] = schema
    return schemas


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
