"""Builds a shard out of settings: the one place where adapters, codecs and engine meet."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from services.fleet.model_loader import ModelLoader
from services.fleet.status import ModelAssignment, dealt, transactional_id
from services.predictor.ports import Refused, Retriable
from services.records import Role
from services.settings import Settings

if TYPE_CHECKING:
    from rnn.config import ModelConfig
    from services.predictor.deployed_models import DeployedModel
    from services.predictor.stats import ShardStats

OVERHEAD_BYTES = 4096
"""Room left below a topic's largest record for keys, headers and batch framing."""
NUMBER_BYTES = 24
"""The longest number that a prediction holds."""


def topic_names(settings: Settings) -> dict[Role, str]:
    """Role -> topic of this pipeline."""
    topics = settings.topics
    return {
        Role.READINGS: topics.readings,
        Role.PREDICTIONS: topics.predictions,
        Role.CHANGELOG: topics.changelog,
        Role.DEAD_LETTERS: topics.dead_letters,
    }


def preload() -> None:
    """Imports what `build_shard` needs, which takes longer than building one."""
    import services.brokers.kafka_changelog
    import services.brokers.kafka_sink
    import services.brokers.kafka_source
    import services.codecs.readings
    import services.predictor.shard  # noqa: F401


def build_shard(
    settings: Settings,
    shard: int,
    partitions: int,
    assignment: ModelAssignment,
    models: ModelLoader,
    *,
    server: str = "",
    incarnation: int = 0,
    pause: Callable[[float], object],
    notify: Callable[..., None],
    tracer: Callable[[Any], None] | None = None,
) -> Any:
    """The `Shard` that owns its share of `partitions`; without the challenger if that cannot run. Raises Refused when
    the champion cannot be served.
    """
    import torch

    from services.brokers import kafka_expiry
    from services.brokers.kafka_changelog import KafkaChangelog
    from services.brokers.kafka_sink import KafkaSink
    from services.brokers.kafka_source import KafkaSource
    from services.codecs.readings import ReadingDecoder
    from services.codecs.schema import Schema
    from services.predictor.deployed_models import most_rows
    from services.predictor.epoch import EpochContext
    from services.predictor.options import ShardOptions
    from services.predictor.shard import Shard

    torch.set_num_threads(settings.fleet.torch_threads)
    champion = models.load(assignment.champion)
    engine, config = champion.engine, champion.engine.config
    challenger = _challenger(assignment.challenger, config, models) if assignment.challenger else None
    if champion.broken:
        notify("rows_depend_on_neighbours", buckets=list(champion.broken))

    topics, max_poll_bytes = topic_names(settings), settings.epoch.max_poll_mib << 20
    mine = dealt(partitions, settings.fleet.shards, shard)
    source = KafkaSource(
        settings.kafka,
        topics[Role.READINGS],
        mine,
        max_poll_bytes=max_poll_bytes,
        notify=notify,
        spares=True,
    )
    sink = KafkaSink(
        settings.kafka,
        group=settings.group,
        transactional_id=transactional_id(settings.group, shard),
        topics=topics,
        partitions=mine,
        delivery=settings.delivery,
        timeout_s=settings.epoch.timeout_s,
        server=server,
        incarnation=incarnation,
    )
    changelog = KafkaChangelog(settings.kafka, topics[Role.CHANGELOG], most_bytes=max_poll_bytes)
    needed = max(engine.table.row_bytes, answer_bytes(config)) + OVERHEAD_BYTES
    if needed > sink.max_value_bytes:
        outputs = [topics[role] for role in (Role.PREDICTIONS, Role.CHANGELOG, Role.DEAD_LETTERS)]
        raise Refused(
            f"max.message.bytes of one of the topics {', '.join(outputs)} leaves room for values of "
            f"{sink.max_value_bytes} bytes; states and predictions of this model need {needed}. Raise it"
        )
    schema = Schema(config.features, config.vocabulary)
    ttl_days, flush_after_s = settings.state.ttl_days, settings.state.flush_after_s
    return Shard(
        source,
        sink,
        changelog,
        champion,
        ReadingDecoder(schema, most_rows(engine, settings.epoch.max_readings)),
        EpochContext(champion.model, settings.group, topics[Role.READINGS], sink.max_value_bytes - OVERHEAD_BYTES),
        mine,
        ShardOptions(
            exactly_once=settings.delivery == "exactly_once",
            max_readings=settings.epoch.max_readings,
            epoch_s=settings.fleet.stall_timeout_s / 4,
            max_streams=settings.state.max_streams,
            ttl_ms=None if ttl_days is None else int(ttl_days * 86_400_000),
            flush_after_ms=None if flush_after_s is None else round(flush_after_s * 1000),
            shards=min(settings.fleet.shards, partitions),
            recent=0 if settings.registry is None else settings.state.recent,
            spotlight=settings.telemetry.spotlight,
            renew_ms=kafka_expiry.renew_ms(kafka_expiry.read(settings.kafka)),
            held_open_s=2 * settings.epoch.timeout_s,
        ),
        challenger=challenger,
        share=assignment.share,
        pause=pause,
        notify=notify,
        tracer=tracer,
    )


def _challenger(model: str, config: ModelConfig, models: ModelLoader) -> DeployedModel | None:
    """None where it cannot run, for it must not keep the champion from serving. The supervisor orders it again, and is
    told the reason then.
    """
    try:
        deployed = models.load(model)
    except (Refused, Retriable):
        return None
    return None if misfit(config, deployed.engine.config) else deployed


def misfit(config: ModelConfig, its: ModelConfig) -> str:
    """Why a model with the config `its` cannot run beside one with `config`; empty: it can."""
    from services.registry import compatible

    if its.direction != "forward" and its != config:
        return "it reads both ways: what waits in its streams cannot be brought over to another model"
    return compatible(config, its) or ""


def answer_bytes(config: ModelConfig) -> int:
    """The most that one prediction's answer takes on the wire."""
    if not config.classes:
        return config.width * 3 * NUMBER_BYTES
    widest = max(len(json.dumps(word)) for word in config.classes) + 8
    return widest * (config.horizon if config.horizon > 1 else config.top_k + 1) + NUMBER_BYTES * config.top_k


def device_of(setting: str) -> str:
    """`auto` is the first GPU, else the CPU. Raises Refused for a GPU that is not there."""
    import torch

    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if setting.startswith("cuda"):
        index = int(setting.partition(":")[2] or 0)
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise Refused(
                f"device: {setting} is asked for, but torch sees {torch.cuda.device_count()} GPUs; "
                "set device: auto or cpu"
            )
    return setting


def see_gpu(stats: ShardStats, device: str) -> None:
    """Looks at the memory of the GPU that `device` names; the CPU has none."""
    if not device.startswith("cuda"):
        return
    import torch

    stats.gpu_free_bytes, stats.gpu_total_bytes = torch.cuda.mem_get_info(device)
    stats.gpu_own_bytes = torch.cuda.memory_reserved(device)
