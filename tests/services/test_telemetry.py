"""What Prometheus, a load balancer and a person see of a server's numbers, over real HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import threading
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.predictor.stats import ShardStats
from services.predictor.watched_streams import Points
from services.quality.pipeline import PipelineStats
from services.quality.prequential import RunningMetrics
from services.records import Reason
from services.telemetry.collector import StatsCollector, new_registry
from services.telemetry.doors import MOST_CALLERS
from services.telemetry.endpoint import CannotListen, Endpoint, Health
from services.telemetry.metric_catalog import CAUSES, FLAGS, METRICS, OUTCOMES, PREFIX, REASONS, labels


@pytest.fixture
def served():
    """An endpoint over an empty collector, with health that tests may change."""
    registry = new_registry()
    said: dict[str, object] = {"health": Health()}

    def health() -> Health:
        now = said["health"]
        if isinstance(now, Exception):
            raise now
        assert isinstance(now, Health)
        return now

    with Endpoint(registry, health, "127.0.0.1", 0) as endpoint:
        yield endpoint, StatsCollector(registry), said


def get(url: str, accept: str = "") -> tuple[int, str, str]:
    try:
        with urlopen(Request(url, headers={"Accept": accept}), timeout=300) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def samples(text: str) -> dict[str, list]:
    found: dict[str, list] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def some_stats() -> ShardStats:
    stats = ShardStats(model="3f9a0c12be77", readings=7, predictions=7, ready=True, slots=100, slots_used=3)
    stats.rejected[Reason.NOT_JSON] = 2
    stats.flagged["late"] = 1
    stats.lag, stats.unreadable = {0: 5, 2: 6}, {2: "a batch is damaged"}
    stats.last_progress_s = 1_700_000_000.5
    stats.latency_s.observe(np.array([0.001, 0.02, 0.02, 1_000.0]))
    stats.phase_s["forward"].observe(0.003)
    stats.challenger = "0ff1ce000000"
    stats.lag_s = 1.5
    stats.gpu_total_bytes, stats.gpu_free_bytes, stats.gpu_own_bytes = 80_000_000_000, 60_000_000_000, 10_000_000_000
    truth = np.array([[1.0], [2.0]])
    for name in ("figures", "challenger_figures"):
        figures = RunningMetrics(np.array([2.0]))
        figures.add(truth, truth + 1, truth - 1, truth + 3, truth - 2)
        setattr(stats, name, figures)
    return stats


def some_points(n: int) -> Points:
    """Of two targets, of which nothing is said of the second."""
    values = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    said = values + np.array([1, np.nan], np.float32)
    return Points('pump-"1"', ("flow", "level"), np.arange(n), values, said, said - 2, said + 2, values[:, 0] / 10)


# ---- metrics --------------------------------------------------------------------------------------------------------


def test_every_named_metric_is_served_with_its_labels_and_no_other(served) -> None:
    endpoint, collector, _ = served
    pipeline = PipelineStats(contest={"gain": 0.1}, drift={"loss": 1.2}, retraining_loss={"validation": 0.1})
    collector.update({0: some_stats(), 1: some_stats()}, {0: {}, 1: {}}, pipeline, [some_points(40)])
    status, content_type, text = get(f"{endpoint.url}/metrics")
    assert status == 200
    assert content_type.startswith("text/plain")
    found = samples(text)
    assert found.keys() == {series for metric in METRICS for series in metric.series()}
    for metric in METRICS:
        for series in metric.series():
            for sample in found[series]:
                assert sample.labels.keys() - {"le"} == set(labels(metric)), series


def test_numbers_arrive_as_they_were_counted(served) -> None:
    endpoint, collector, _ = served
    collector.update({3: some_stats()}, {3: {"died": 2}})
    found = samples(get(f"{endpoint.url}/metrics")[2])

    def together(name: str, **wanted: str) -> float:
        (one,) = [sample.value for sample in found[name] if sample.labels == wanted]
        return one

    def value(name: str, **wanted: str) -> float:
        return together(name, shard="3", **wanted)

    assert value("streamrnn_readings_total") == 7
    assert together("streamrnn_rejected_total", reason="not_json") == 2
    assert together("streamrnn_flagged_readings_total", flag="late") == 1
    assert value("streamrnn_consumer_lag_messages", partition="2") == 6
    assert value("streamrnn_consumer_lag_seconds") == 1.5
    assert value("streamrnn_gpu_memory_free_bytes") == 60e9
    assert value("streamrnn_last_progress_timestamp_seconds") == 1_700_000_000.5
    assert value("streamrnn_shard_ready") == 1
    assert value("streamrnn_shard_restarts_total", cause="died") == 2
    assert value("streamrnn_model_info", model="3f9a0c12be77") == 1
    assert value("streamrnn_challenger_info", model="0ff1ce000000") == 1
    champion = {"model": "3f9a0c12be77", "step": "1"}
    assert together("streamrnn_forecast_mse", **champion) == 0.25
    assert together("streamrnn_persistence_mse", **champion) == 1
    assert together("streamrnn_band_coverage_ratio", **champion) == 1
    assert together("streamrnn_scored_values", **champion) == 2
    assert together("streamrnn_challenger_mse", model="0ff1ce000000", step="1") == 0.25
    assert value("streamrnn_phase_seconds_total", phase="forward") == 0.003
    assert together("streamrnn_step_seconds_count", phase="forward") == 1
    assert together("streamrnn_end_to_end_latency_seconds_count") == 4
    assert math.isclose(together("streamrnn_end_to_end_latency_seconds_sum"), 1_000.041)
    assert together("streamrnn_end_to_end_latency_seconds_bucket", le="0.005") == 1
    assert together("streamrnn_end_to_end_latency_seconds_bucket", le="0.02") == 3
    assert together("streamrnn_end_to_end_latency_seconds_bucket", le="300.0") == 3
    assert together("streamrnn_end_to_end_latency_seconds_bucket", le="+Inf") == 4


def test_what_shards_count_together_goes_on_when_one_is_replaced(served) -> None:
    endpoint, collector, _ = served

    def together() -> tuple[float, float, float]:
        found = samples(get(f"{endpoint.url}/metrics")[2])
        (rejected,) = [one.value for one in found["streamrnn_rejected_total"] if one.labels["reason"] == "not_json"]
        return (
            rejected,
            found["streamrnn_end_to_end_latency_seconds_count"][0].value,
            found["streamrnn_forecast_mse"][0].value,
        )

    first, second = some_stats(), some_stats()
    collector.update({0: first, 1: second}, {0: {}, 1: {}})
    assert together() == (4, 8, 0.25)
    collector.update({0: first}, {0: {}, 1: {"died": 1}})  # nothing is counted back while the second is away
    assert together() == (4, 8, 0.25)
    newcomer = some_stats()
    newcomer.started_s += 1
    collector.update({0: first, 1: newcomer}, {0: {}, 1: {"died": 1}})
    collector.update({0: first, 1: newcomer}, {0: {}, 1: {"died": 1}})
    assert together() == (6, 12, 0.25)


def test_the_newest_point_of_a_stream_in_the_spotlight_is_shown_and_no_other(served) -> None:
    endpoint, collector, _ = served
    collector.update({0: some_stats()}, {0: {}}, None, [some_points(3)])
    found = samples(get(f"{endpoint.url}/metrics")[2])
    its = {"stream": 'pump-"1"', "target": "flow"}
    assert [(one.labels, one.value) for one in found["streamrnn_spotlight_prediction"]] == [(its, 5)]
    assert [(one.labels, one.value) for one in found["streamrnn_spotlight_upper"]] == [(its, 7)]
    assert [one.value for one in found["streamrnn_spotlight_actual"]] == [4, 5]
    assert [one.labels.keys() for one in found["streamrnn_spotlight_score"]] == [{"stream"}]


def test_no_label_grows_with_streams(served) -> None:
    endpoint, collector, _ = served
    sizes = []
    for streams in (10, 1_000_000):
        stats = some_stats()
        stats.live_streams = streams
        collector.update({0: stats}, {0: {}}, None, [some_points(3)])
        sizes.append(len(get(f"{endpoint.url}/metrics")[2].splitlines()))
    assert sizes[0] == sizes[1]
    named = {label for metric in METRICS for label in labels(metric) if label in ("stream", "key", "sensor")}
    assert named == {"stream"}
    assert {metric.of for metric in METRICS if "stream" in labels(metric)} == {"spotlight"}


def test_what_never_happened_is_a_zero_not_an_absence(served) -> None:
    endpoint, collector, _ = served
    collector.update({0: ShardStats()}, {0: {}})
    found = samples(get(f"{endpoint.url}/metrics")[2])
    for name, label, words in [
        ("streamrnn_rejected_total", "reason", REASONS),
        ("streamrnn_flagged_readings_total", "flag", FLAGS),
        ("streamrnn_epochs_total", "outcome", OUTCOMES),
        ("streamrnn_shard_restarts_total", "cause", CAUSES),
    ]:
        assert {sample.labels[label]: sample.value for sample in found[name]} == dict.fromkeys(words, 0.0)


def test_a_shard_that_is_being_replaced_is_down_and_keeps_no_old_numbers(served) -> None:
    endpoint, collector, _ = served
    collector.update({0: some_stats(), 1: some_stats()}, {0: {}, 1: {}})
    collector.update({0: some_stats()}, {0: {}, 1: {"died": 1}})
    found = samples(get(f"{endpoint.url}/metrics")[2])
    assert {sample.labels["shard"]: sample.value for sample in found["streamrnn_shard_up"]} == {"0": 1, "1": 0}
    assert {sample.labels["shard"] for sample in found["streamrnn_live_streams"]} == {"0"}


def test_scrapers_that_ask_for_openmetrics_get_the_plain_format_which_costs_half(served) -> None:
    endpoint, collector, _ = served
    collector.update({0: some_stats()}, {0: {}})
    _, content_type, text = get(f"{endpoint.url}/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("text/plain; version=0.0.4")
    assert "# EOF" not in text
    assert 'streamrnn_shard_up{shard="0"} 1.0\n' in text


def test_the_same_server_twice_in_one_process_does_not_collide() -> None:
    first, second = StatsCollector(new_registry()), StatsCollector(new_registry())
    first.update({0: some_stats()})
    assert [family.name for family in first.collect()] == [family.name for family in second.collect()]


def test_names_follow_the_conventions() -> None:
    for metric in METRICS:
        assert metric.name.startswith(PREFIX)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.name.endswith("_info") == (metric.kind == "info"), metric.name
        assert metric.help.endswith("."), metric.name
        if metric.unit in ("seconds", "ratio", "rows", "messages") and "restored" not in metric.name:
            assert metric.unit in metric.name, metric.name
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    shown = {metric.field for metric in METRICS if metric.of in ("shard", "shards")}
    # Drift, what forecasts are worth of all shards, what the supervisor alone asks, reasons that a person reads.
    elsewhere = {"inputs", "figures", "challenger_figures", "beats", "unreadable", "dropped_in_row", "dropped_for"}
    every = {name for name, value in vars(ShardStats).items() if isinstance(value, property)}
    assert shown - {""} == (every | set(ShardStats.__dataclass_fields__)) - elsewhere
    pipeline = {metric.field for metric in METRICS if metric.of == "pipeline"}
    assert pipeline == set(PipelineStats.__dataclass_fields__), "every field of PipelineStats is a metric"


# ---- probes ---------------------------------------------------------------------------------------------------------


def test_ready_only_with_no_reason_against_it_and_alive_meanwhile(served) -> None:
    endpoint, _, said = served
    assert get(f"{endpoint.url}/readyz")[0] == 200
    said["health"] = Health(unready=["shard 1 is restoring state: 40%"])
    status, content_type, text = get(f"{endpoint.url}/readyz")
    assert (status, content_type) == (503, "application/json")
    assert json.loads(text) == {"alive": True, "ready": False, "reasons": ["shard 1 is restoring state: 40%"]}
    assert get(f"{endpoint.url}/healthz")[0] == 200


def test_not_alive_is_neither_healthy_nor_ready(served) -> None:
    endpoint, _, said = served
    said["health"] = Health(alive=False)
    assert get(f"{endpoint.url}/healthz")[0] == 503
    assert get(f"{endpoint.url}/readyz")[0] == 503


def test_a_check_that_breaks_is_an_answer_not_a_hang(served) -> None:
    endpoint, _, said = served
    said["health"] = ValueError("password=hunter2")
    status, _, text = get(f"{endpoint.url}/healthz")
    assert status == 503
    assert "ValueError" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/metrics/", 200), ("/readyz?verbose", 200), ("/nothing", 404)]
)
def test_other_paths(served, path: str, status: int) -> None:
    endpoint, _, _ = served
    assert get(endpoint.url + path)[0] == status


def test_head_gives_the_status_without_a_body_on_a_connection_that_stays(served) -> None:
    endpoint, _, _ = served
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=300)
    for _ in range(2):
        connection.request("HEAD", "/healthz")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
    connection.close()


# ---- the port -------------------------------------------------------------------------------------------------------


def test_a_busy_port_names_the_setting(served) -> None:
    endpoint, _, _ = served
    second = Endpoint(new_registry(), Health, "127.0.0.1", endpoint.port)
    with pytest.raises(CannotListen, match=rf"telemetry\.port: 127\.0\.0\.1:{endpoint.port} is taken"):
        second.start()
    second.stop()


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host.invalid"])
def test_an_address_of_another_machine_names_the_setting(host: str) -> None:
    with pytest.raises(CannotListen, match=r"telemetry\.host"):
        Endpoint(new_registry(), Health, host, 0).start()


def test_stop_frees_the_port_even_with_a_client_that_never_speaks() -> None:
    endpoint = Endpoint(new_registry(), Health, "127.0.0.1", 0)
    endpoint.start()
    port = endpoint.port
    with socket.create_connection(("127.0.0.1", port)):
        endpoint.stop()
        endpoint.stop()
        again = Endpoint(new_registry(), Health, "127.0.0.1", port)
        again.start()
        assert get(f"{again.url}/healthz")[0] == 200
        again.stop()


# ---- whom it answers ------------------------------------------------------------------------------------------------


def status_for(endpoint: Endpoint, path: str, host: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port)
    try:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def guarded() -> Iterator[Endpoint]:
    with Endpoint(new_registry(), Health, "127.0.0.1", 0, names=("pumps.example.org",)) as endpoint:
        yield endpoint


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/live.json", "/"])
def test_a_page_of_another_site_reads_nothing_by_giving_its_own_name_this_address(guarded: Endpoint, path: str) -> None:
    for host in ("evil.example", f"evil.example:{guarded.port}", "127.0.0.1.evil.example", "pumps.example.org.evil.io"):
        assert status_for(guarded, path, host) == 421, host


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:9464", "localhost", "LOCALHOST:80", "10.1.2.3:9464", "[::1]:9464", "[fd00::7]", "streamrnn-server:9464",
     "pumps.example.org", "Pumps.Example.org.:443"],
)  # fmt: skip
def test_probes_scrapers_and_its_own_names_are_answered(guarded: Endpoint, host: str) -> None:
    assert status_for(guarded, "/metrics", host) == 200


def test_callers_that_open_many_connections_and_say_little_keep_nobody_out(guarded: Endpoint) -> None:
    before, callers = threading.active_count(), []
    try:
        for _ in range(4 * MOST_CALLERS):
            caller = socket.create_connection(("127.0.0.1", guarded.port))
            caller.sendall(b"GET /healthz HT")
            callers.append(caller)
        assert status_for(guarded, "/healthz", "127.0.0.1") == 200
        for caller in callers[: 2 * MOST_CALLERS]:  # cut off, and so their threads have ended
            with contextlib.suppress(ConnectionError):
                assert caller.recv(1) == b""
        assert threading.active_count() - before <= 2 * MOST_CALLERS
    finally:
        for caller in callers:
            caller.close()
