"""The tree of settings: every key with its type, unit, default and meaning. No reading of files or environment here.

A default serves a laptop and a cluster alike unless its description says otherwise. Durations carry their unit.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from services.redaction import Masked, masked, secrets_in
from services.settings.model_lifecycle import RetrainSettings, RolloutSettings, Section
from services.settings.streams import StateSettings
from services.settings.telemetry import TelemetrySettings

ENV_PREFIX = "STREAMRNN__"
BOOTSTRAP = "127.0.0.1:9092"

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _topic(name: str) -> str:
    if name and (not _TOPIC.fullmatch(name) or name in (".", "..")):
        raise ValueError("a topic name: at most 249 letters, digits, '.', '_' or '-'")
    return name


def _device(device: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError("one of auto, cpu, cuda, cuda:0, cuda:1, ...")
    return device


Topic = Annotated[str, AfterValidator(_topic)]


class TopicsSettings(Section):
    """Names and shape of the pipeline's topics."""

    readings: Topic = Field("", description="Topic the sensors write to. Empty: {pipeline}.readings.")
    predictions: Topic = Field("", description="Topic the predictions go to. Empty: {pipeline}.predictions.")
    changelog: Topic = Field("", description="Compacted topic of state rows. Empty: {pipeline}.changelog.")
    dead_letters: Topic = Field("", description="Topic of refused records. Empty: {pipeline}.dead-letters.")
    events: Topic = Field(
        "",
        description="With `registry`: compacted topic of what happens to the models: verdicts, drift, quality. "
        "Empty: {pipeline}.events.",
    )
    partitions: int = Field(
        4,
        ge=1,
        le=10_000,
        description="Partitions of each topic made by `streamrnn topics create`; an upper limit to shards.",
    )
    replication: int | None = Field(
        None, ge=1, le=32, description="Copies of each partition. null: 3, or the number of brokers if that is less."
    )
    retention_days: float | None = Field(
        7.0,
        gt=0,
        description="Days that readings and predictions are kept. null: for ever. The changelog is compacted instead.",
    )
    dead_letters_retention_days: float | None = Field(
        30.0, gt=0, description="Days that dead letters are kept. null: for ever."
    )


class EpochSettings(Section):
    """The unit of commit."""

    max_readings: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Most readings in one epoch. Epochs are usually smaller: one poll's worth.",
    )
    max_poll_mib: int = Field(
        128,
        ge=1,
        le=65_536,
        description="MiB of memory that readings may take which are polled and not decoded yet, in each shard; for a "
        "moment up to three times as much. A compressed batch of records that unpacks to more becomes one dead letter.",
    )
    timeout_s: float = Field(
        30.0,
        ge=1,
        le=900,
        description="Seconds a commit may take before the shard gives up and restarts; also the transaction timeout, "
        "so the longest time that a dead shard's open transaction holds readers back.",
    )


class FleetSettings(Section):
    """The actors and where they run."""

    shards: int = Field(2, ge=1, le=10_000, description="Actors that share the partitions; never more than partitions.")
    ray_address: str | None = Field(
        None, description="Ray cluster to join: auto, HOST:6379 or ray://HOST:10001. null: start Ray on this machine."
    )
    ray_node: str | None = Field(
        None,
        description="With HOST:6379 as `ray_address`: make this machine a node of that Ray first, one without CPUs, as "
        "a server in a pod of its own needs it; the text is further flags of `ray start`, with $VARIABLES. null: it is "
        "a node already.",
    )
    cpus_per_shard: float = Field(1.0, ge=0, description="CPU cores that Ray reserves for each shard.")
    gpus_per_shard: float = Field(
        0.0,
        ge=0,
        description="GPUs that Ray reserves for each shard; with a fraction, shards share one (without isolation).",
    )
    stall_timeout_s: float = Field(
        30.0,
        ge=1,
        description="Seconds without progress after which a shard is replaced. Idle topics count as progress.",
    )
    torch_threads: int = Field(1, ge=1, le=1024, description="CPU threads that torch uses in each shard.")


class LogSettings(Section):
    """What is said on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe event that is written."
    )
    format: Literal["auto", "pretty", "json"] = Field(
        "auto", description="pretty: for people; json: one object a line. auto: pretty on a terminal, json elsewhere."
    )
    repeats: int = Field(
        30,
        ge=1,
        description="Lines a minute of one event of one shard; more are counted, and said in one line. Errors always "
        "are written.",
    )


class Settings(BaseSettings):
    """All settings of one pipeline. Made by `services.settings.load`; frozen, and safe to print: secrets are masked."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="null",
    )

    pipeline: str = Field(
        "sensors",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="Name of this pipeline, the stem of its topics and group: lower-case letters, digits and hyphens.",
    )
    kafka: Annotated[dict[str, Any], AfterValidator(Masked)] = Field(
        default_factory=dict,
        description="Connection settings of kafka-python by their own names: bootstrap_servers, security_protocol, "
        f"ssl_cafile, sasl_mechanism, sasl_plain_username, ... bootstrap_servers defaults to {BOOTSTRAP}.",
    )
    topics: TopicsSettings = TopicsSettings()
    group: str = Field(
        "",
        max_length=249,
        description="Consumer group under which offsets are committed; lag tools show it. Empty: streamrnn-{pipeline}.",
    )
    model: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        Path("model"),
        description="Folder of the model: model.safetensors and card.json. In a file, relative to that file's folder.",
    )
    registry: str | None = Field(
        None,
        description="Folder or URL (s3://, gs://, abfs://) of the registry of models. Its champion is served, its "
        "challenger runs in shadow, and changes are followed while serving; an empty one gets `model` as its first "
        "champion. In a file, a relative folder is relative to that file's. null: serve `model`, always.",
    )
    delivery: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once",
        description="exactly_once: predictions, state and offsets in one Kafka transaction. at_least_once: without "
        "transactions; a crash may double a prediction, but no reading is folded into a state twice.",
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        "auto",
        description="Where the network runs: cpu, cuda, cuda:N. auto: the first GPU that is there, else the CPU.",
    )
    epoch: EpochSettings = EpochSettings()
    state: StateSettings = StateSettings()
    rollout: RolloutSettings = RolloutSettings()
    retrain: RetrainSettings = RetrainSettings()
    fleet: FleetSettings = FleetSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the constructor is given: `services.settings.load` reads the rest, and says who said what."""
        return (init_settings,)

    @model_serializer(mode="wrap")
    def _hide(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of every field, whatever its name: what can hold a credential is not told."""
        shown: dict[str, Any] = masked("", serialized(self))
        return shown

    def __repr_args__(self) -> Any:
        return [(name, masked(str(name), value)) for name, value in super().__repr_args__()]

    def secrets(self) -> list[str]:
        """All that is masked of these settings, to be masked wherever else it shows up."""
        tree = {name: dict(value) if isinstance(value, Section) else value for name, value in self}
        return list(secrets_in("", tree))

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, given: Any) -> Any:
        """Fills the names that follow from `pipeline`, and the bootstrap servers."""
        if not isinstance(given, dict) or not isinstance(pipeline := given.get("pipeline", "sensors"), str):
            return given
        filled = dict(given)
        filled["group"] = given.get("group") or f"streamrnn-{pipeline}"
        if isinstance(topics := given.get("topics", {}), dict):
            names = {role: f"{pipeline}.{role.replace('_', '-')}" for role in ROLES}
            filled["topics"] = {**topics, **{role: topics.get(role) or name for role, name in names.items()}}
            filled["topics"]["events"] = topics.get("events") or f"{pipeline}.events"
        if isinstance(kafka := given.get("kafka", {}), dict):
            filled["kafka"] = {"bootstrap_servers": BOOTSTRAP, **kafka}
        return filled

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [getattr(self.topics, role) for role in (*ROLES, "events")]
        if len(set(names)) < len(names):
            raise ValueError(f"topics: the topics must have different names, not {', '.join(names)}")
        return self


ROLES = ("readings", "predictions", "changelog", "dead_letters")
