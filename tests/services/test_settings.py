"""What a person notices of the settings: which value wins, what is said about mistakes, and that no secret shows."""

from __future__ import annotations

import json
import pickle
import traceback
from pathlib import Path

import pytest
import yaml

from services.settings import Settings, WrongSettings, listed, load, read, schema

SENTINEL = "hunter2-sentinel"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.upper().startswith("STREAMRNN__")]:
        monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str) -> Path:
        path = tmp_path / "streamrnn.yaml"
        path.write_text(text)
        return path

    return _write


def refused(config: Path | str | None = None, *flags: str) -> str:
    with pytest.raises(WrongSettings) as caught:
        load(config, flags)
    return str(caught.value)


# ---- what wins ------------------------------------------------------------------------------------------------------


def test_defaults_serve_without_any_setting() -> None:
    settings = load()
    assert settings.kafka == {"bootstrap_servers": "127.0.0.1:9092"}
    assert settings.topics.readings == "sensors.readings"
    assert settings.topics.dead_letters == "sensors.dead-letters"
    assert settings.group == "streamrnn-sensors"
    assert settings.delivery == "exactly_once"


def test_flag_wins_over_environment_over_file_over_default(write, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write("epoch: {max_readings: 1, timeout_s: 11}\nstate: {slots: 101}\n")
    monkeypatch.setenv("STREAMRNN__EPOCH__MAX_READINGS", "2")
    monkeypatch.setenv("STREAMRNN__STATE__SLOTS", "102")
    loaded = read(config, ["epoch.max_readings=3"])
    settings = loaded.settings
    assert (settings.epoch.max_readings, settings.state.slots, settings.epoch.timeout_s) == (3, 102, 11.0)
    shown = listed(loaded)
    for key, value, source in [
        ("max_readings", "3", "flag"),
        ("slots", "102", "env"),
        ("timeout_s", "11.0", "file"),
        ("shards", "2", "default"),
    ]:
        assert any(line.split() == [f"{key}:", value, "#", source] for line in shown.splitlines()), (
            f"{key} in:\n{shown}"
        )


def test_names_follow_the_pipeline_unless_given(write) -> None:
    settings = load(write("pipeline: pumps\ntopics:\n  readings: plant.raw\n"))
    assert settings.topics.readings == "plant.raw"
    assert settings.topics.predictions == "pumps.predictions"
    assert settings.group == "streamrnn-pumps"


def test_a_model_in_a_file_is_looked_for_beside_that_file(write) -> None:
    config = write("model: models/a")
    assert load(config).model == config.parent / "models" / "a"
    assert load(config, ["model=models/b"]).model == Path("models/b")
    assert load(config, ["model=/srv/m"]).model == Path("/srv/m")


def test_connection_settings_from_everywhere_are_merged_and_typed(write, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write("kafka:\n  security_protocol: SASL_SSL\n  sasl_mechanism: PLAIN\n  request_timeout_ms: 1\n")
    monkeypatch.setenv("STREAMRNN__KAFKA__SASL_PLAIN_PASSWORD", "0123")
    monkeypatch.setenv("STREAMRNN__KAFKA__SSL_CHECK_HOSTNAME", "false")
    kafka = load(config, ["kafka.request_timeout_ms=9000", "kafka.bootstrap_servers=[a:1, b:2]"]).kafka
    assert kafka == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "request_timeout_ms": 9000,
        "sasl_plain_password": "0123",
        "ssl_check_hostname": False,
    }


def test_null_means_none_in_file_environment_and_flag(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMRNN__TOPICS__RETENTION_DAYS", "null")
    settings = load(write("state: {ttl_days: null}"), ["topics.dead_letters_retention_days=null"])
    assert settings.state.ttl_days is None
    assert settings.topics.retention_days is None
    assert settings.topics.dead_letters_retention_days is None


def test_a_list_of_names_can_be_given_everywhere(write, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(None, ["telemetry.spotlight=7"]).telemetry.spotlight == ("7",)
    assert load(write("telemetry: {spotlight: [pump-1, 'a, b']}")).telemetry.spotlight == ("pump-1", "a, b")
    for text in ("pump-1,pump 2", '["pump-1", "pump 2"]', "[pump-1, 'pump 2']"):
        assert load(None, [f"telemetry.spotlight={text}"]).telemetry.spotlight == ("pump-1", "pump 2")
        monkeypatch.setenv("STREAMRNN__TELEMETRY__SPOTLIGHT", text)
        assert load().telemetry.spotlight == ("pump-1", "pump 2")


def test_an_empty_file_and_an_empty_section_change_nothing(write) -> None:
    assert load(write("")) == load()
    assert load(write("epoch:\nkafka:\n")) == load()


def test_settings_travel_to_actors_unchanged(write) -> None:
    settings = load(write("kafka: {ssl_password: p}\nstate: {ttl_days: null}"))
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_what_show_prints_can_be_given_back(write) -> None:
    loaded = read(write("pipeline: pumps\nstate: {ttl_days: null}\nmodel: /m"), ["kafka.bootstrap_servers=[a:1]"])
    assert load(write(listed(loaded))) == loaded.settings


# ---- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("epoch.max_readingz=5", "epoch.max_readings"),
        ("epocj.max_readings=5", "epoch"),
        ("max_readings=5", "epoch.max_readings"),
        ("bootstrap_servers=a:1", "kafka.bootstrap_servers"),
        ("topics.shards=2", "fleet.shards"),
        ("kafka.bootstrap_server=a:1", "kafka.bootstrap_servers"),
        ("pipelines=a", "pipeline"),
        ("device.name=cpu", "device"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(flag: str, nearest: str) -> None:
    message = refused(None, flag)
    assert flag.partition("=")[0].split(".")[0] in message
    assert nearest in message


def test_an_unknown_key_names_the_file_or_variable_it_stands_in(write, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write("epoch: {max_reading: 5}")
    assert str(config) in refused(config)
    assert "epoch.max_readings" in refused(config)
    monkeypatch.setenv("STREAMRNN__EPOCHS__MAX_READINGS", "5")
    assert "STREAMRNN__EPOCHS__MAX_READINGS" in refused()
    assert "did you mean epoch.max_readings" in refused()


def test_every_mistake_is_named_at_once(write) -> None:
    config = write("device: gpu\nepoch: {max_readings: many, timeout_s: 0}\nlog: {level: loud}\n")
    message = refused(config)
    for path in ("device", "epoch.max_readings", "epoch.timeout_s", "log.level"):
        assert f"{path}: " in message
    assert len(message.splitlines()) == 4


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("epoch.max_readings=many", ["'many'", "whole number", "1 to 1000000", "10000"]),
        ("epoch.max_readings=0", ["'0'", "1 to 1000000"]),
        ("epoch.timeout_s=soon", ["'soon'", "number from 1 to 900"]),
        ("state.ttl_days=-1", ["'-1'", "above 0", "null"]),
        ("topics.replication=2.5", ["'2.5'", "whole number", "null"]),
        ("delivery=once", ["'once'", "exactly_once", "at_least_once"]),
        ("log.level=loud", ["'loud'", "debug", "warning"]),
        ("device=gpu", ["'gpu'", "cpu", "cuda:0"]),
        ("pipeline=Big_Pumps", ["'Big_Pumps'", "lower-case"]),
        ("topics.readings=a b", ["'a b'", "topic name"]),
        ("telemetry.port=70000", ["'70000'", "65535"]),
        ("telemetry.spotlight=[a, b, a]", ["telemetry.spotlight", "each stream once"]),
        (f"telemetry.spotlight={[f'pump-{i}' for i in range(21)]}", ["telemetry.spotlight", "at most 20"]),
        ("telemetry.spotlight=['']", ["telemetry.spotlight", "1 to 256 bytes"]),
        ("telemetry.spotlight=[7]", ["telemetry.spotlight", "list"]),
        ("telemetry.traces=collector:4318", ["'collector:4318'", "a URL such as http://HOST:4318"]),
        ("telemetry.traces_share=2", ["'2'", "telemetry.traces_share"]),
        ("log.repeats=0", ["'0'", "log.repeats"]),
        ("epoch=5", ["epoch", "max_readings", "timeout_s"]),
        ("kafka=a:9092", ["kafka", "section"]),
        ("kafka.group_id=g", ["kafka.group_id", "`group`"]),
        ("topics.predictions=sensors.readings", ["different names", "sensors.readings"]),
        ("nonsense", ["--set", "section.key=value"]),
        ("kafka.a.b=1", ["kafka.a", "--set"]),
        ("epoch.timeout.s=1", ["epoch.timeout.s", "--set"]),
    ],
)
def test_a_wrong_value_names_key_value_expectation_and_origin(flag: str, words: list[str]) -> None:
    message = refused(None, flag)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pipeline: [", ["line 1", "not valid YAML"]),
        ("a: 1\n\tb: 2", ["line 2", "tab"]),
        ("- pipeline", ["keys and values"]),
        ("pipeline: a\npipeline: b", ["line 2", "twice"]),
        ("epoch: {timeout_s: 1, timeout_s: 2}", ["twice"]),
        ("pipeline: 12", ["pipeline", "12", "text"]),
        ("epoch: [1]", ["epoch", "section"]),
        ("? [a]\n: 1", ["not valid YAML"]),
        ("1: 2", ["no such setting"]),
    ],
)
def test_a_broken_file_says_where(write, text: str, words: list[str]) -> None:
    config = write(text)
    message = refused(config)
    for word in [str(config), *words]:
        assert word in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "missing.yaml" in refused(tmp_path / "missing.yaml")
    assert str(tmp_path) in refused(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"pipeline: caf\xe9")
    assert "UTF-8" in refused(tmp_path / "latin.yaml")


def test_a_section_in_the_environment_must_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMRNN__EPOCH", '{"max_readings": 7}')
    assert load().epoch.max_readings == 7
    monkeypatch.setenv("STREAMRNN__EPOCH", "max_readings: 7")
    assert "STREAMRNN__EPOCH" in refused()


# ---- secrets --------------------------------------------------------------------------------------------------------

SECRET_FILES = {
    "right": f"kafka: {{sasl_plain_password: {SENTINEL}, ssl_password: {SENTINEL}}}",
    "misspelt": f"kafka: {{sasl_plain_pasword: {SENTINEL}}}",
    "wrong place": f"sasl_plain_password: {SENTINEL}",
    "wrong section": f"epoch: {{sasl_plain_password: {SENTINEL}}}",
    "section is text": f"kafka: sasl_plain_password={SENTINEL}",
    "beside a mistake": f"kafka: {{sasl_plain_password: {SENTINEL}}}\nepoch: {{max_readings: x}}",
    "nested": f"kafka: {{sasl_plain_password: {{value: {SENTINEL}}}}}",
    "beside a refused key": f"kafka: {{sasl_plain_password: {SENTINEL}, group_id: x}}",
    "bad protocol": f"kafka: {{sasl_plain_password: {SENTINEL}, security_protocol: X}}",
    "undefined alias": f"kafka: {{sasl_plain_password: *{SENTINEL}}}",
    "unknown tag": f"kafka: {{sasl_plain_password: !{SENTINEL} x}}",
    "unfinished quote": f"kafka:\n  sasl_plain_password: '{SENTINEL}",
    "tab": f"kafka:\n\tsasl_plain_password: {SENTINEL}",
    "twice": f"kafka:\n  sasl_plain_password: {SENTINEL}\n  sasl_plain_password: {SENTINEL}",
    "only a text": SENTINEL,
}


@pytest.mark.parametrize("text", SECRET_FILES.values(), ids=SECRET_FILES.keys())
def test_no_secret_of_a_file_is_ever_shown(write, text: str) -> None:
    shows_nothing(write(text))


@pytest.mark.parametrize(
    "flag",
    [
        f"kafka.sasl_plain_password={SENTINEL}",
        f"kafka.sasl_plain_pasword={SENTINEL}",
        f"kafka.sasl_plain_password:{SENTINEL}",
        f"sasl_plain_password={SENTINEL}",
        f"kafka={SENTINEL}",
        f"kafka.sasl.plain.password={SENTINEL}",
        f"password={SENTINEL}",
    ],
)
def test_no_secret_of_a_flag_is_ever_shown(flag: str) -> None:
    shows_nothing(None, flag)
    shows_nothing(None, flag, "epoch.max_readings=x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STREAMRNN__KAFKA__SASL_PLAIN_PASSWORD", SENTINEL),
        ("STREAMRNN__KAFKA__SASL_PLAIN_PASWORD", SENTINEL),
        ("STREAMRNN__SASL_PLAIN_PASSWORD", SENTINEL),
        ("STREAMRNN__KAFKA", SENTINEL),
        ("STREAMRNN__KAFKA", f'{{"sasl_plain_password": "{SENTINEL}"'),
        ("STREAMRNN__KAFKA__A__B", SENTINEL),
    ],
)
def test_no_secret_of_the_environment_is_ever_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    shows_nothing(None)


def shows_nothing(config: Path | None, *flags: str) -> None:
    """Neither the error with its whole chain, nor any way to look at the settings, shows the sentinel."""
    try:
        loaded = read(config, flags)
    except WrongSettings as error:
        seen = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__context__)
    else:
        settings = loaded.settings
        seen = repr(settings) + str(settings) + repr(loaded) + listed(loaded) + repr(settings.kafka)
        seen += str(settings.model_dump()) + settings.model_dump_json() + f"{settings.kafka}"
        assert "***" in listed(loaded)
    # a traceback quotes our own test's source lines, which name the variable, not its value
    assert SENTINEL not in seen


# ---- the schema -----------------------------------------------------------------------------------------------------


def test_every_setting_is_described_and_has_a_default() -> None:
    tree = json.loads(schema())
    sections = [tree, *tree["$defs"].values()]
    entries = {name: entry for section in sections for name, entry in section["properties"].items()}
    assert {"pipeline", "kafka", "max_readings", "ttl_days", "stall_timeout_s"} <= entries.keys()
    for name, entry in entries.items():
        described = tree["$defs"][entry["$ref"].rsplit("/")[-1]] if "$ref" in entry else entry
        assert len(described["description"]) > 10, name
    assert Settings() == load()


def test_the_schema_accepts_what_load_accepts(write) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    tree = json.loads(schema())
    good = "pipeline: pumps\nkafka: {bootstrap_servers: [a:1]}\nstate: {ttl_days: null}\nfleet: {shards: 4}"
    load(write(good))
    jsonschema.validate(yaml.safe_load(good), tree)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"epoch": {"max_reading": 1}}, tree)
