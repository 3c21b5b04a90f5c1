"""What an operator relies on, read off the rendered objects."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CHART, EVERYBODY, KAFKA, NO_CRDS, PROFILES, PROVIDERS, Helm, Objects, Render, profile

from rnn.io import weights
from services.brokers import kafka_topics
from services.records import Role
from services.settings import Settings, load

EVERYTHING = (
    "--set=registry.create=true", "--set=registry.url=", "--set=retraining.enabled=true", "--set=retraining.workers=1",
    "--set=kafka.existingSecret=kafka-login", "--set=kafka.tlsSecret=kafka-ca", "--set=metrics.podMonitor.enabled=true",
    "--set=metrics.rules.enabled=true", "--set=metrics.dashboards.enabled=true", EVERYBODY,
)  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", PROFILES)
def test_both_helms_lint_and_render_every_profile_both_ways(helm: Helm, name: str, provider: str) -> None:
    given = profile(name, f"--set=ray.provider={provider}")
    linted = helm("lint", CHART, "--strict", "--quiet", *given)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    kinds = Objects(helm.template(*given)).kinds()
    assert ("RayCluster" in kinds) == (provider == "kuberay")
    assert ("StatefulSet" in kinds) == (provider == "builtin" or name == "small")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_pod_is_let_in_by_the_restricted_level(render: Render, provider: str) -> None:
    seen = 0
    for where, template in render("small", f"--set=ray.provider={provider}", *EVERYTHING).pods():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, where
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            assert context["readOnlyRootFilesystem"] is True, where
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, where
            assert "memory" in container["resources"]["limits"], where
            mounts = {one["mountPath"] for one in container["volumeMounts"]}
            home = next((one["value"] for one in container.get("env", []) if one["name"] == "HOME"), None)
            assert "/tmp" in mounts or container["name"] == "maker", where  # it writes nothing
            assert home is None or home in mounts, where
            assert not any(one["mountPath"] == "/dev/shm" for one in container["volumeMounts"]) or "shm" in {
                one["name"] for one in spec["volumes"] if one.get("emptyDir", {}).get("medium") == "Memory"
            }, where
        assert not any("hostPath" in one for one in spec.get("volumes", [])), where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), where
        seen += 1
    assert seen >= 6


@pytest.mark.parametrize("provider", PROVIDERS)
def test_only_the_pod_that_makes_rayjobs_has_rights(render: Render, provider: str) -> None:
    objects = render("small", f"--set=ray.provider={provider}", *EVERYTHING)
    with_token = [where for where, pod in objects.pods() if pod["spec"]["automountServiceAccountToken"] is not False]
    if provider == "builtin":
        assert not with_token
        assert not objects.kinds() & {"Role", "RoleBinding", "ClusterRole"}
        return
    assert with_token == ["CronJob r-streamrnn-retraining.spec.jobTemplate.spec.template"]
    own = {"apiGroups": ["batch"], "resources": ["cronjobs"], "resourceNames": ["r-streamrnn-retraining"]}
    assert objects.one("Role")["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "list"]},
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["delete"],
         "resourceNames": [f"r-streamrnn-retrain-{number}" for number in range(4)]},
        {**own, "verbs": ["get"]},
    ]  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS)
def test_more_volumes_and_variables_reach_every_container(render: Render, provider: str) -> None:
    more = ("--set-json=extraVolumes=[{\"name\":\"more\",\"emptyDir\":{}}]",
            "--set-json=extraVolumeMounts=[{\"name\":\"more\",\"mountPath\":\"/more\"}]",
            "--set-json=extraEnv=[{\"name\":\"MORE\",\"value\":\"1\"}]")  # fmt: skip
    for where, template in render("small", f"--set=ray.provider={provider}", *EVERYTHING, *more).pods():
        assert {"name": "more", "emptyDir": {}} in template["spec"]["volumes"], where
        for container in [*template["spec"]["containers"], *template["spec"].get("initContainers", [])]:
            assert {"name": "more", "mountPath": "/more"} in container["volumeMounts"], where
            assert {"name": "MORE", "value": "1"} in container["env"], where


def test_the_operator_finds_nothing_to_fill_in(render: Render) -> None:
    """Or a later helm upgrade would conflict with it over workerGroupSpecs."""
    objects = render("gpu", "--set=workers.cpu.replicas=1", *EVERYTHING)
    job = json.loads(objects.one("ConfigMap", "-rayjob")["data"]["rayjob.json"])
    cluster = objects.one("RayCluster")
    assert len(cluster["metadata"]["name"]) <= 53
    for spec in (cluster["spec"], job["spec"]["rayClusterSpec"]):
        for group in spec["workerGroupSpecs"]:
            assert group["scaleStrategy"] == {}
            assert group["numOfHosts"] == 1
            assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
            assert group["template"]["metadata"]
            for probe in ("readinessProbe", "livenessProbe"):
                assert probe in group["template"]["spec"]["containers"][0] or spec is not cluster["spec"]
    gpus = cluster["spec"]["workerGroupSpecs"][1]["template"]["spec"]["containers"][0]
    assert gpus["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "--num-gpus=1" in gpus["args"][0]


def test_ray_is_the_same_whoever_runs_it(render: Render) -> None:
    """So that what is proven of plain pods is true of the operator's."""
    plain, operated = render("small"), render("small", "--set=ray.provider=kuberay")
    cluster = operated.one("RayCluster")["spec"]
    assert plain.one("StatefulSet", "-head")["spec"]["template"] == cluster["headGroupSpec"]["template"]
    assert plain.one("Deployment", "-worker-cpu")["spec"]["template"] == cluster["workerGroupSpecs"][0]["template"]
    assert plain.one("Deployment", "-server") == operated.one("Deployment", "-server")


def test_ports_of_ray_are_fixed_and_stay_inside(render: Render) -> None:
    objects = render("small")
    for one in objects.all:
        if one["kind"] == "Service":
            assert one["spec"].get("type", "ClusterIP") == "ClusterIP"
    assert [port["port"] for port in objects.one("Service", "-ray")["spec"]["ports"]] == [6379]
    policies = {one["metadata"]["name"]: one["spec"] for one in objects.all if one["kind"] == "NetworkPolicy"}
    inside = policies["r-streamrnn"]
    assert inside["ingress"] == [{"from": [{"podSelector": inside["podSelector"]}]}]
    assert {str(port["port"]) for name, one in policies.items() if name != "r-streamrnn"
            for rule in one["ingress"] for port in rule["ports"]} == {"9092"}  # fmt: skip
    for kind, name in (("StatefulSet", "-head"), ("Deployment", "-worker-cpu")):
        container = objects.one(kind, name)["spec"]["template"]["spec"]["containers"][0]
        assert "--node-manager-port=6380 --object-manager-port=6381" in container["args"][0]
        env = {one["name"]: one for one in container["env"]}
        assert env["RAY_AUTH_MODE"]["value"] == "token"
        assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "r-streamrnn-ray-auth"


# ---- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROFILES)
def test_the_server_accepts_its_settings_file(render: Render, name: str, tmp_path: Path) -> None:
    file = tmp_path / "streamrnn.yaml"
    file.write_text(yaml.safe_dump(render(name).settings()))
    settings = load(file)
    assert settings.fleet.ray_address == "r-streamrnn-ray:6379"
    assert settings.telemetry.host == "0.0.0.0"
    assert settings.telemetry.port == 9464
    assert str(settings.model) == "/etc/streamrnn/model"
    assert settings.registry == ("s3://streamrnn/models" if name == "ha" else None)


def test_secrets_reach_the_settings_by_the_environment_alone(render: Render) -> None:
    objects = render("ha", "--set=kafka.existingSecret=login", "--set=topicCreation.existingSecret=admin")
    of = {}
    for where, pod in objects.pods():
        for container in pod["spec"]["containers"]:
            for one in container.get("env", []):
                if one["name"] == "STREAMRNN__KAFKA__SASL_PLAIN_PASSWORD":
                    of[where.split(".")[0]] = one["valueFrom"]["secretKeyRef"]
    assert of.pop(next(name for name in of if "-topics-" in name)) == {"name": "admin", "key": "sasl_plain_password"}
    assert of["Deployment r-streamrnn-server"] == {"name": "login", "key": "sasl_plain_password"}


def test_the_example_model_fits_the_small_profile(render: Render, tmp_path: Path) -> None:
    given = render("small").one("ConfigMap", "-model")
    (tmp_path / "card.json").write_text(given["data"]["card.json"])
    (tmp_path / "model.safetensors").write_bytes(base64.b64decode(given["binaryData"]["model.safetensors"]))
    _, card = weights.load(tmp_path)
    assert card.config.cell == "lstm"
    assert card.config.features[0] == "Global_active_power"
    assert (tmp_path / "model.safetensors").stat().st_size < 200_000


def test_strimzis_topics_are_those_that_the_command_makes(newest: Helm) -> None:
    given = ["--set=topicCreation.by=strimzi,topicCreation.strimzi.cluster=main,registry.url=s3://b/m", KAFKA, NO_CRDS]
    given += ["--set=settings.topics.partitions=7", "--set-json=settings.topics.retention_days=null"]
    objects = Objects(newest.template(*given))
    settings = Settings.model_validate({"topics": {"partitions": 7, "retention_days": None}})
    names = {role: getattr(settings.topics, role.value.replace("-", "_")) for role in Role}
    spec = kafka_topics.spec(settings, names)
    for role, name in names.items():
        topic = objects.one("KafkaTopic", role.value.replace("_", "-"))
        assert topic["spec"]["topicName"] == name
        assert topic["spec"]["partitions"] == 7
        made = kafka_topics._configs(role, spec, replication=3)
        assert {key: str(value) for key, value in topic["spec"]["config"].items()} == made, name
        assert topic["metadata"]["labels"]["strimzi.io/cluster"] == "main"
    assert objects.one("KafkaTopic", "-events")["spec"]["partitions"] == 1
    assert "Job" not in objects.kinds()


# ---- what restarts what ---------------------------------------------------------------------------------------------


def templates(objects: Objects) -> dict[str, Any]:
    """Pods that stay, by name: the topics' job and the test come and go."""
    found = {where.split("-", 1)[1].split(".")[0]: pod for where, pod in objects.pods()}
    return {name: pod for name, pod in found.items() if not name.startswith(("streamrnn-topics", "streamrnn-test"))}


@pytest.mark.parametrize(
    ("change", "restarted"),
    [
        ("metrics.cluster=other", set()),
        ("metrics.podMonitor.interval=30s", set()),
        ("metrics.rules.labels.team=data", set()),
        ("networkPolicy.enabled=false", set()),
        ("workers.cpu.replicas=5", set()),
        ("test.timeoutSeconds=10", set()),
        ("settings.log.level=debug", {"server"}),
        ("settings.epoch.timeout_s=60", {"server"}),
        ("commonLabels.team=data", set()),
        ("model.source=configMap,model.name=other", {"server", "worker-cpu"}),
        ("settings.fleet.cpus_per_shard=0,model.source=configMap", {"server", "head", "worker-cpu"}),
    ],
)
def test_a_value_restarts_what_it_concerns_and_nothing_else(render: Render, change: str, restarted: set[str]) -> None:
    on = ("--set=metrics.podMonitor.enabled=true,metrics.rules.enabled=true,model.name=one", EVERYBODY)
    before, after = templates(render("small", *on)), templates(render("small", *on, f"--set={change}"))
    names = {name.removeprefix("streamrnn-") for name in before if before[name] != after[name]}
    assert names == restarted


def test_the_server_has_longer_to_leave_than_an_epoch_may_take(render: Render) -> None:
    for seconds in (30, 300):
        server = render("small", f"--set=settings.epoch.timeout_s={seconds}").one("Deployment", "-server")["spec"]
        assert server["template"]["spec"]["terminationGracePeriodSeconds"] > seconds
        assert server["strategy"] == {"type": "Recreate"}


def test_a_new_chart_version_restarts_no_pod(newest: Helm, tmp_path: Path) -> None:
    other = tmp_path / "streamrnn"
    shutil.copytree(CHART, other)
    text = (other / "Chart.yaml").read_text().replace("version: 0.1.0\napp", "version: 9.9.9\napp")
    (other / "Chart.yaml").write_text(text)
    done = newest("template", "r", other, "--namespace", "ns", *profile("small"))
    assert done.returncode == 0, done.stderr
    after = Objects([one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one])
    assert templates(after) == templates(Objects(newest.template(*profile("small"))))


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
def test_two_releases_in_one_namespace_share_no_name_and_no_pod(newest: Helm, provider: str) -> None:
    given = [*profile("small", f"--set=ray.provider={provider}"), *EVERYTHING]
    first, second = (Objects(newest.template(*given, release=name)) for name in ("one", "two"))
    names = [{(one["kind"], one["metadata"]["name"]) for one in objects.all} for objects in (first, second)]
    assert not names[0] & names[1]
    for one in first.all:
        selector = one.get("spec", {}).get("selector") or one.get("spec", {}).get("podSelector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            for where, pod in second.pods():
                labels = pod.get("metadata", {}).get("labels", {})
                assert not wanted.items() <= labels.items(), f"{one['kind']} {one['metadata']['name']} takes {where}"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_services_and_policies_find_pods(render: Render, provider: str) -> None:
    objects = render("small", f"--set=ray.provider={provider}")
    pods = [pod["metadata"]["labels"] for _, pod in objects.pods() if pod.get("metadata")]
    for kind in ("Service", "NetworkPolicy", "PodDisruptionBudget"):
        for one in (one for one in objects.all if one["kind"] == kind):
            selector = one["spec"].get("selector") or one["spec"]["podSelector"]
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= labels.items() for labels in pods), one["metadata"]["name"]


def test_a_drain_takes_one_worker_at_a_time(render: Render) -> None:
    """By a share where Kubernetes can count the pods of a group, by a number where it cannot: a RayCluster's."""
    assert render("ha").one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    operated = render("ha", "--set=ray.provider=kuberay").one("PodDisruptionBudget")["spec"]
    assert operated["minAvailable"] == 2
    assert "maxUnavailable" not in operated
    assert "PodDisruptionBudget" not in render("small", "--set=ray.provider=kuberay").kinds()


def test_a_long_name_stays_within_what_names_may_be(newest: Helm) -> None:
    for one in newest.template(*profile("small", *EVERYTHING), release="a-name-as-long-as-helm-allows-it-" + "x" * 19):
        assert len(one["metadata"]["name"]) <= 63, one["metadata"]["name"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_pod_that_talks_to_ray_is_one_that_the_policy_lets_in(render: Render, provider: str) -> None:
    objects = render("small", f"--set=ray.provider={provider}", *EVERYTHING)
    (let_in,) = objects.one("NetworkPolicy", "r-streamrnn")["spec"]["ingress"][0]["from"]
    wanted = let_in["podSelector"]["matchLabels"]
    found = set()
    for where, pod in objects.pods():
        assert wanted.items() <= pod["metadata"]["labels"].items(), where
        found.add(where.split(" ")[0] + (".submitter" if "submitter" in where else ""))
    assert found == {"Deployment", "StatefulSet", "Job", "CronJob", "Pod"} | (
        {"RayCluster", "ConfigMap", "ConfigMap.submitter"} if provider == "kuberay" else set()
    ), found


@pytest.mark.parametrize("provider", PROVIDERS)
def test_common_labels_are_on_every_object_and_on_no_pod(render: Render, provider: str) -> None:
    more = ("--set=commonLabels.team=data", f"--set=ray.provider={provider}", *EVERYTHING)
    objects = render("small", *more)
    for one in objects.all:
        assert one["metadata"]["labels"]["team"] == "data", one["metadata"]["name"]
        if one["kind"] != "Pod":
            assert all("team" not in pod["metadata"]["labels"] for _, pod in Objects([one]).pods())


def test_the_development_kafkas_volume_goes_with_the_release(render: Render) -> None:
    kafka = render("small", "--set=kafka.dev.storage.size=1Gi").one("StatefulSet", "-kafka")["spec"]
    assert kafka["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"
    assert "persistentVolumeClaimRetentionPolicy" not in render("small").one("StatefulSet", "-kafka")["spec"]


def test_shards_of_the_gpu_profile_never_fall_back_to_the_cpu(render: Render) -> None:
    assert render("gpu").settings()["device"] == "cuda"


# ---- around it ------------------------------------------------------------------------------------------------------


def test_prometheus_is_told_which_pipeline_and_cluster_it_scrapes(render: Render) -> None:
    objects = render("small", "--set=metrics.podMonitor.enabled=true,metrics.cluster=blue", EVERYBODY)
    for name, job, pods in (("r-streamrnn", "streamrnn", {"server"}), ("-ray", "ray", {"head", "worker-cpu"})):
        spec = objects.one("PodMonitor", name)["spec"]
        (endpoint,) = spec["podMetricsEndpoints"]
        told = {one["targetLabel"]: one["replacement"] for one in endpoint["relabelings"]}
        assert told == {"job": job, "cluster": "blue", "pipeline": "power"}
        found = set()
        for _, pod in objects.pods():
            labels = pod["metadata"]["labels"]
            if spec["selector"]["matchLabels"].items() <= labels.items():
                found.add(labels["app.kubernetes.io/component"])
                assert endpoint["port"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert found == pods


def test_rules_and_dashboards_are_the_files_of_deploy(render: Render) -> None:
    objects = render("ha")
    rules = yaml.safe_load((CHART.parents[1] / "deploy" / "prometheus" / "rules.yaml").read_text())
    assert objects.one("PrometheusRule")["spec"] == rules
    boards = sorted((CHART.parents[1] / "deploy" / "grafana" / "dashboards").glob("*.json"))
    given = [one for one in objects.all if one["metadata"]["labels"].get("grafana_dashboard") == "1"]
    assert {name: text for one in given for name, text in one["data"].items()} == {
        f"streamrnn-{board.name}": board.read_text() for board in boards
    }


def test_the_test_pod_sends_a_reading_with_the_servers_settings(render: Render) -> None:
    pod = render("small").one("Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["containers"][0]["command"][:4] == ["streamrnn", "probe", "-c", "/etc/streamrnn/streamrnn.yaml"]


def test_retrainings_never_overlap(render: Render) -> None:
    for provider in PROVIDERS:
        job = render("ha", f"--set=ray.provider={provider}").one("CronJob")["spec"]
        assert job["concurrencyPolicy"] == "Forbid"
        assert job["jobTemplate"]["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize("minutes", [60, 240])
def test_a_training_that_hangs_is_ended_after_its_limit(render: Render, minutes: int) -> None:
    given = f"--set=settings.retrain.limit_minutes={minutes}"
    job = render("ha", given).one("CronJob")["spec"]["jobTemplate"]["spec"]
    assert job["activeDeadlineSeconds"] == (minutes + 15) * 60
    made = render("ha", given, "--set=ray.provider=kuberay").one("ConfigMap", "-rayjob")["data"]["rayjob.json"]
    assert json.loads(made)["spec"]["activeDeadlineSeconds"] == (minutes + 15) * 60


def test_notes_say_the_next_three_commands_and_shout_about_the_kafka(newest: Helm) -> None:
    done = newest("install", "r", CHART, "--dry-run=client", "--namespace", "ns", *profile("small"))
    assert done.returncode == 0, done.stderr
    notes = done.stdout.split("NOTES:")[1]
    for command in ("kubectl -n ns rollout status deployment/r-streamrnn-server", "helm -n ns test r",
                    "kubectl -n ns port-forward service/r-streamrnn-server 9464"):  # fmt: skip
        assert command in notes
    assert "FOR DEVELOPMENT ONLY" in notes
    lost = "IT HAS NO VOLUME. All topics, every reading and every stream's state ARE LOST"
    assert lost in notes
    kept = newest("install", "r", CHART, "--dry-run=client", *profile("small", "--set=kafka.dev.storage.size=1Gi"))
    assert "FOR DEVELOPMENT ONLY" in kept.stdout and "NO VOLUME" not in kept.stdout


def test_notes_say_that_nobody_has_the_image_until_another_is_named(newest: Helm) -> None:
    for more, told in (((), True), (("--set=image.repository=registry.acme.com/streamrnn",), False)):
        done = newest("install", "r", CHART, "--dry-run=client", "--namespace", "ns", *profile("small", *more))
        assert ("No public registry has the image streamrnn:0.1.0" in done.stdout) == told, done.stdout + done.stderr
