"""Every alert fires when it should and is silent when it is near to it, by promtool over made-up series.

A case names the series that differ from those of a healthy pipeline, samples a minute apart, and when to look. Time
starts at 0 s since 1970.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from binaries import promtool

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yaml"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}

SHARD = 'shard="0"'
HEALTHY = {  # name and labels beside cluster and pipeline -> values
    'up{job="streamrnn"}': "1x200",
    'streamrnn_build_info{version="1"}': "1x200",
    "streamrnn_start_timestamp_seconds{}": "0x200",
    f"streamrnn_shard_up{{{SHARD}}}": "1x200",
    f"streamrnn_shard_ready{{{SHARD}}}": "1x200",
    f'streamrnn_shard_restarts_total{{{SHARD},cause="died"}}': "0x200",
    f'streamrnn_shard_restarts_total{{{SHARD},cause="stalled"}}': "0x200",
    f"streamrnn_last_progress_timestamp_seconds{{{SHARD}}}": "0+60x200",
    f'streamrnn_consumer_lag_messages{{{SHARD},partition="0"}}': "7x200",
    f"streamrnn_consumer_lag_seconds{{{SHARD}}}": "0.2x200",
    f"streamrnn_broker_away_seconds{{{SHARD}}}": "0x200",
    f"streamrnn_readings_total{{{SHARD}}}": "0+6000x200",
    f"streamrnn_lost_readings_total{{{SHARD}}}": "0x200",
    'streamrnn_rejected_total{reason="not_json"}': "0+6x200",
    f'streamrnn_epochs_total{{{SHARD},outcome="kept"}}': "0+300x200",
    f'streamrnn_epochs_total{{{SHARD},outcome="dropped"}}': "0+1x200",
    'streamrnn_end_to_end_latency_seconds_bucket{le="1.0"}': "0+6000x200",
    'streamrnn_end_to_end_latency_seconds_bucket{le="+Inf"}': "0+6000x200",
    "streamrnn_end_to_end_latency_seconds_count{}": "0+6000x200",
    "streamrnn_unread_partitions{}": "0x200",
    f"streamrnn_restore_done_ratio{{{SHARD}}}": "1x200",
    f"streamrnn_slots{{{SHARD}}}": "1000x200",
    f"streamrnn_slots_used{{{SHARD}}}": "1000x200",
    f'streamrnn_evictions_total{{{SHARD},reason="spilled"}}': "0+60x200",
    f"streamrnn_gpu_memory_bytes{{{SHARD}}}": "100x200",
    f"streamrnn_gpu_memory_free_bytes{{{SHARD}}}": "6x200",
    'streamrnn_forecast_mse{model="a",step="1"}': "0.9x200",
    'streamrnn_persistence_mse{model="a",step="1"}': "1x200",
    'streamrnn_scored_values{model="a",step="1"}': "9000x200",
    'streamrnn_drift_ratio{name="flow"}': "0.9x200",
    'streamrnn_retrainings_total{outcome="trained"}': "0x100 1x100",
    'streamrnn_retrainings_total{outcome="failed"}': "0x200",
    "streamrnn_retrained_timestamp_seconds{}": "0x100 6000x100",
    "streamrnn_retraining_interval_seconds{}": "10800x200",
}


@dataclass
class Case:
    """`at`: when it fires with `fires` in place of healthy series; `near`: series with which it does not, then."""

    at: str
    fires: dict[str, str]
    labels: dict[str, str] = field(default_factory=dict)  # beside cluster, pipeline, severity
    near: dict[str, str] = field(default_factory=dict)
    every: str = "1m"  # between two samples


ON_SHARD = {"shard": "0"}

Pieces = tuple[tuple[int, float], ...]
"""Samples, and how many times faster than allowed the budget is used meanwhile."""
FAST: list[tuple[Pieces, Pieces]] = [  # (fires, near); minutes
    (((300, 0), (55, 20)), ((338, 0), (17, 30))),  # an hour and five minutes; the hour has not had enough
    (((300, 0), (55, 20)), ((290, 0), (54, 18), (11, 8))),  # the last five minutes are better
    (((355, 8),), ((300, 0), (55, 13))),  # six hours and half an hour; the six hours have not had enough
    (((355, 8),), ((310, 8), (45, 3))),  # the last half hour is better
]
SLOW: list[tuple[Pieces, Pieces]] = [  # the same; ten minutes
    (((440, 1.5),), ((397, 0), (43, 8))),  # three days and six hours; the three days have not had enough
    (((440, 1.5),), ((396, 2), (44, 0.6))),  # the last six hours are better
]


def summed(pieces: Pieces, per_sample: Callable[[float], float]) -> str:
    """A counter's samples."""
    total, found = 0.0, ["0"]
    for samples, burn in pieces:
        for _ in range(samples):
            total += per_sample(burn)
            found.append(f"{total:.6g}" if total < 1e5 else f"{total:.1f}")
    return " ".join(found)


def late(*pieces: tuple[int, float]) -> dict[str, str]:
    """6,000 predictions a sample, of which 1 % may be late."""
    name = "streamrnn_end_to_end_latency_seconds"
    every = summed(pieces, lambda burn: 6000)
    return {f'{name}_bucket{{le="1.0"}}': summed(pieces, lambda burn: 6000 * (1 - 0.01 * burn)),
            f'{name}_bucket{{le="+Inf"}}': every, f"{name}_count{{}}": every}  # fmt: skip


def rejected(*pieces: tuple[int, float]) -> dict[str, str]:
    """6,000 records a sample, of which 0.5 % may go without a prediction."""
    return {'streamrnn_rejected_total{reason="not_json"}': summed(pieces, lambda burn: 6000 * 0.005 * burn),
            f"streamrnn_readings_total{{{SHARD}}}": summed(pieces, lambda burn: 6000 * (1 - 0.005 * burn)),
            f"streamrnn_lost_readings_total{{{SHARD}}}": summed(pieces, lambda burn: 0)}  # fmt: skip


def few(start: int, lost: int) -> dict[str, str]:
    """One record a sample, and a shard that started then and found so many lost."""
    return {'streamrnn_rejected_total{reason="not_json"}': "0x200", f"streamrnn_readings_total{{{SHARD}}}": "0+1x200",
            f"streamrnn_lost_readings_total{{{SHARD}}}": f"{f'_x{start} ' if start else ''}{lost}x140"}  # fmt: skip


CASES: dict[str, list[Case]] = {
    "StreamrnnDown": [
        Case("9m", {'up{job="streamrnn"}': "1x5 0x10"}, {"job": "streamrnn"}, {'up{job="streamrnn"}': "1x5 0 0 1x9"}),
        Case("9m", {'up{job="streamrnn"}': "1x5 stale", 'streamrnn_build_info{version="1"}': "1x5 stale"},
             near={'streamrnn_build_info{version="1"}': "1x5 stale",
                   'streamrnn_build_info{version="2"}': "_x5 1x20"}),
    ],
    "StreamrnnNotStarted": [
        Case("9m", {f"streamrnn_shard_up{{{SHARD}}}": "_x20"}, near={f"streamrnn_shard_up{{{SHARD}}}": "_x3 0x20"}),
    ],
    "StreamrnnShardDown": [
        Case("9m", {f"streamrnn_shard_up{{{SHARD}}}": "1x3 0x20"}, ON_SHARD,
             {f"streamrnn_shard_up{{{SHARD}}}": "1x3 0 0 1x20"}),
    ],
    "StreamrnnShardRestarting": [
        Case("29m", {f'streamrnn_shard_restarts_total{{{SHARD},cause="died"}}': "0x10 1x5 2x5 3x20"}, ON_SHARD,
             {f'streamrnn_shard_restarts_total{{{SHARD},cause="died"}}': "0x10 1x5 2x25"}),
    ],
    "StreamrnnNoProgress": [
        Case("15m", {f'streamrnn_epochs_total{{{SHARD},outcome="kept"}}': "0+300x5 1500x20"}, ON_SHARD,
             {f'streamrnn_epochs_total{{{SHARD},outcome="kept"}}': "0+300x5 1500x20",
              f'streamrnn_consumer_lag_messages{{{SHARD},partition="0"}}': "0x20"}),
        Case("10m", {f"streamrnn_last_progress_timestamp_seconds{{{SHARD}}}": "0+60x5 300x20"}, ON_SHARD,
             {f"streamrnn_last_progress_timestamp_seconds{{{SHARD}}}": "-100+60x20"}),
    ],
    "StreamrnnBrokerAway": [
        Case("10m", {f"streamrnn_broker_away_seconds{{{SHARD}}}": "0x5 0+60x20"},
             near={f"streamrnn_broker_away_seconds{{{SHARD}}}": "0x5 0 60 119 0 60 119x5"}),
        Case("10m", {f"streamrnn_broker_away_seconds{{{SHARD}}}": "0x20",
                     'streamrnn_broker_away_seconds{shard="1"}': "121x20"},
             near={f"streamrnn_broker_away_seconds{{{SHARD}}}": "0+60x8 0x12"}),
    ],
    "StreamrnnReadingsStopped": [
        Case("60m", {f"streamrnn_readings_total{{{SHARD}}}": "0+6000x35 210000x40"},
             near={f"streamrnn_readings_total{{{SHARD}}}": "0x70"}),
    ],
    "StreamrnnLag": [
        Case("20m", {f"streamrnn_consumer_lag_seconds{{{SHARD}}}": "0x5 61x20"}, ON_SHARD,
             {f"streamrnn_consumer_lag_seconds{{{SHARD}}}": "0x5 500x3 59x20"}),
    ],
    "StreamrnnReadingsLost": [
        Case("30m", {f"streamrnn_lost_readings_total{{{SHARD}}}": "_x20 17x40"}, ON_SHARD,
             {f"streamrnn_lost_readings_total{{{SHARD}}}": "_x20 0x40"}),
        Case("90m", {f"streamrnn_lost_readings_total{{{SHARD}}}": "0x60 5x40"}, ON_SHARD,
             {f"streamrnn_lost_readings_total{{{SHARD}}}": "5x100"}),
    ],
    "StreamrnnPartitionSetAside": [
        Case("20m", {f'streamrnn_partition_set_aside{{{SHARD},partition="2"}}': "_x10 1x20"},
             {**ON_SHARD, "partition": "2"},
             {f'streamrnn_partition_set_aside{{{SHARD},partition="2"}}': "_x10 1x5 stale"}),
    ],
    "StreamrnnPartitionsUnread": [
        Case("20m", {"streamrnn_unread_partitions{}": "0x10 2x20"},
             near={"streamrnn_unread_partitions{}": "0x10 2x3 0x20"}),
    ],
    "StreamrnnRestoreSlow": [
        Case("20m", {f"streamrnn_restore_done_ratio{{{SHARD}}}": "0.9x40"}, ON_SHARD,
             {f"streamrnn_restore_done_ratio{{{SHARD}}}": "0+0.2x5 1x20"}),
    ],
    "StreamrnnEpochsAborting": [
        Case("30m", {f'streamrnn_epochs_total{{{SHARD},outcome="dropped"}}': "0+30x40"}, ON_SHARD,
             {f'streamrnn_epochs_total{{{SHARD},outcome="dropped"}}': "0+14x40"}),
    ],
    "StreamrnnSlotsExhausted": [
        Case("30m", {f'streamrnn_evictions_total{{{SHARD},reason="spilled"}}': "0+900x40"}, ON_SHARD,
             {f'streamrnn_evictions_total{{{SHARD},reason="spilled"}}': "0+500x40"}),
        Case("30m", {f'streamrnn_evictions_total{{{SHARD},reason="spilled"}}': "0+900x40"}, ON_SHARD,
             {f'streamrnn_evictions_total{{{SHARD},reason="spilled"}}': "0+900x40",
              f"streamrnn_slots_used{{{SHARD}}}": "970x40"}),
    ],
    "StreamrnnStreamsFull": [
        Case("20m", {f"streamrnn_streams_used_ratio{{{SHARD}}}": "0.95x40"}, ON_SHARD,
             {f"streamrnn_streams_used_ratio{{{SHARD}}}": "0.9x40"}),
    ],
    "StreamrnnGpuMemory": [
        Case("20m", {f"streamrnn_gpu_memory_free_bytes{{{SHARD}}}": "4x40"}, ON_SHARD),
        Case("20m", {f"streamrnn_gpu_memory_free_bytes{{{SHARD}}}": "4x40"}, ON_SHARD,
             {f"streamrnn_gpu_memory_bytes{{{SHARD}}}": "_x40", f"streamrnn_gpu_memory_free_bytes{{{SHARD}}}": "_x40"}),
    ],
    "StreamrnnRejecting": [
        Case("40m", {'streamrnn_rejected_total{reason="not_json"}': "0+120x60"},
             near={'streamrnn_rejected_total{reason="not_json"}': "0+50x60"}),
    ],
    "StreamrnnInternalError": [
        Case("40m", {'streamrnn_internal_errors_total{place="decode"}': "0x30 1x30"},
             near={'streamrnn_internal_errors_total{place="decode"}': "0x60"}),
        Case("95m", {'streamrnn_internal_errors_total{place="restore"}': "_x90 1x30"},  # at its first sample
             near={'streamrnn_internal_errors_total{place="restore"}': "1x120"}),
        Case("40m", {f"streamrnn_unreadable_streams{{{SHARD}}}": "1x60"},
             near={f"streamrnn_unreadable_streams{{{SHARD}}}": "0x60"}),
    ],
    "StreamrnnWorseThanPersistence": [
        Case("100m", {'streamrnn_forecast_mse{model="a",step="1"}': "1.1x120",
                      'streamrnn_scored_values{model="a",step="1"}': "1100x120"}, {"model": "a", "step": "1"}),
        Case("100m", {'streamrnn_forecast_mse{model="a",step="1"}': "0.9x20 1.1x100"}, {"model": "a", "step": "1"},
             {'streamrnn_forecast_mse{model="a",step="1"}': "1.1x120",
              'streamrnn_scored_values{model="a",step="1"}': "900x120"}),
    ],
    "StreamrnnDrift": [
        Case("100m", {'streamrnn_drift_ratio{name="flow"}': "0.5x10 1x100"}, {"name": "flow"},
             {'streamrnn_drift_ratio{name="flow"}': "0.5x60 1.5x60"}),
    ],
    "StreamrnnRetrainingFailed": [
        Case("30m", {'streamrnn_retrainings_total{outcome="failed"}': "0x20 1x40"}, {"outcome": "failed"}),
    ],
    "StreamrnnRetrainingStale": [
        Case("75m", {"streamrnn_retraining_interval_seconds{}": "1800x90"},
             near={"streamrnn_retraining_interval_seconds{}": "1800x90",
                   "streamrnn_retrained_timestamp_seconds{}": "0x50 3000x40"}),
        Case("75m", {"streamrnn_retraining_interval_seconds{}": "1800x90"},
             near={"streamrnn_retraining_interval_seconds{}": "1800x90",
                   "streamrnn_start_timestamp_seconds{}": "3000x90"}),
        Case("75m", {"streamrnn_retraining_interval_seconds{}": "1800x90"},
             near={"streamrnn_retraining_interval_seconds{}": "0x90"}),
    ],
    "StreamrnnLatencyBudgetFast": [Case("350m", late(*fires), near=late(*near)) for fires, near in FAST],
    "StreamrnnLatencyBudgetSlow": [Case("4310m", late(*fires), near=late(*near), every="10m") for fires, near in SLOW],
    "StreamrnnCompletenessBudgetFast": [
        *(Case("350m", rejected(*fires), near=rejected(*near)) for fires, near in FAST),
        Case("90m", {f"streamrnn_lost_readings_total{{{SHARD}}}": "0+300x120"},
             near={f"streamrnn_lost_readings_total{{{SHARD}}}": "0+100x120"}),
        Case("63m", few(60, lost=17), near=few(60, lost=0)),  # found at a start, in a series that begins with it
        Case("63m", few(60, lost=17), near=few(0, lost=17)),  # an hour ago
    ],
    "StreamrnnCompletenessBudgetSlow": [
        Case("4310m", rejected(*fires), near=rejected(*near), every="10m") for fires, near in SLOW
    ],
}  # fmt: skip


def series(values: dict[str, str]) -> list[dict[str, str]]:
    """Input series as promtool takes them."""
    return [
        {"series": name.replace("{", '{cluster="c",pipeline="p",').replace(",}", "}"), "values": its}
        for name, its in (HEALTHY | values).items()
    ]


def firing(alert: str, at: str, labels: dict[str, str] | None) -> dict[str, Any]:
    """What is expected of one alert at one time; None: silence."""
    query = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
    if labels is None:
        return {"expr": query, "eval_time": at}
    all_labels = {
        "alertname": alert, "alertstate": "firing", "cluster": "c", "pipeline": "p",
        "severity": ALERTS[alert]["labels"]["severity"], **labels,
    }  # fmt: skip
    listed = ",".join(f'{name}="{value}"' for name, value in all_labels.items())
    return {"expr": query, "eval_time": at, "exp_samples": [{"labels": f"ALERTS{{{listed}}}", "value": 1}]}


def waited(alert: str, at: str) -> dict[str, Any]:
    """Before it fired it was pending for as long as its rule says."""
    minutes = int(ALERTS[alert]["for"][:-1]) * {"m": 1, "h": 60}[ALERTS[alert]["for"][-1]]
    query = f'sum(count_over_time(ALERTS{{alertname="{alert}",alertstate="pending"}}[{at}]))'
    return {
        "expr": query,
        "eval_time": at,
        **({"exp_samples": [{"labels": "{}", "value": minutes}]} if minutes else {}),
    }


def run(folder: Path, tests: list[dict[str, Any]], rules: Path = RULES, every: str = "1m") -> None:
    """promtool, over groups of input series and expectations."""
    # Without an order of its groups promtool takes them in any: alerts would see what was recorded a step before.
    order = [group["name"] for group in GROUPS]
    asked = {"rule_files": [str(rules)], "evaluation_interval": every, "group_eval_order": order, "tests": tests}
    (folder / "rules_test.yaml").write_text(yaml.safe_dump(asked, width=10_000))
    command = [str(promtool()), "test", "rules", "rules_test.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def alone(alert: str, folder: Path) -> Path:
    """The rules with this alert only, and what it reads: the others take most of the time."""
    recorded = {rule["record"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "record" in rule}
    wanted: set[str] = set()
    asked = [ALERTS[alert]["expr"]]
    while asked:
        expression = asked.pop()
        found = {name for name in recorded if name in expression} - wanted
        wanted |= found
        asked += [recorded[name] for name in found]
    kept = [
        {**group, "rules": [rule for rule in group["rules"]
                            if rule.get("alert") == alert or rule.get("record") in wanted]}
        for group in GROUPS
    ]  # fmt: skip
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": kept}))
    return folder / "rules.yaml"


def test_rules_are_valid() -> None:
    done = subprocess.run([str(promtool()), "check", "rules", str(RULES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_fires_and_stays_silent(alert: str, tmp_path: Path) -> None:
    tests = []
    for case in CASES[alert]:
        for changed, labels in ((case.fires, case.labels), (case.near, None)):
            asked = [firing(alert, case.at, labels)]
            if labels is not None and case.every == "1m":
                asked.append(waited(alert, case.at))
            tests.append({"interval": case.every, "input_series": series(changed), "promql_expr_test": asked})
    run(tmp_path, tests, alone(alert, tmp_path), CASES[alert][0].every)


def test_every_alert_has_its_cases() -> None:
    assert CASES.keys() == ALERTS.keys()
    for alert, cases in CASES.items():
        assert any(case.near for case in cases) or alert == "StreamrnnRetrainingFailed"


def test_a_healthy_pipeline_wakes_nobody(tmp_path: Path) -> None:
    at = [f"{minute}m" for minute in range(5, 200, 15)]
    silence = [{"expr": 'ALERTS{alertstate="firing"}', "eval_time": time} for time in at]
    run(tmp_path, [{"interval": "1m", "input_series": series({}), "promql_expr_test": silence}])


@pytest.mark.parametrize(
    ("lost", "seen"),
    [
        ("_x60 17x140", {59: None, 60: 17, 100: 17, 119: 17, 121: 0}),  # a server that is new
        ("_x60 17x10 0x130", {65: 17, 100: 17, 121: 0}),  # and a shard that started once more, to which nothing is lost
        ("_x60 0x10 17x130", {65: 0, 71: 17, 100: 17}),  # its shard started again
        ("5x200", {5: 5, 61: 0}),  # lost long ago
        ("5x80 stale", {79: 0, 100: 0, 139: 0, 140: None}),  # and its server is gone since, too
        ("0x200", {5: 0, 100: 0}),
    ],
)
def test_what_retention_took_is_counted_from_the_first_sample_on(
    lost: str, seen: dict[int, float | None], tmp_path: Path
) -> None:
    asked = [
        {"expr": "streamrnn:pipeline_lost:increase1h", "eval_time": f"{minute}m",
         "exp_samples": [] if value is None else
         [{"labels": '{__name__="streamrnn:pipeline_lost:increase1h",cluster="c",pipeline="p"}', "value": value}]}
        for minute, value in seen.items()
    ]  # fmt: skip
    given = series({f"streamrnn_lost_readings_total{{{SHARD}}}": lost})
    run(tmp_path, [{"interval": "1m", "input_series": given, "promql_expr_test": asked}],
        alone("StreamrnnCompletenessBudgetFast", tmp_path))  # fmt: skip


def test_an_idle_pipeline_wakes_nobody(tmp_path: Path) -> None:
    idle = {name: "0x200" for name in HEALTHY if "_total" in name or "latency" in name}
    idle |= {name: "0x200" for name in HEALTHY if "lag" in name}
    silence = [{"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{at}m"} for at in range(5, 200, 15)]
    run(tmp_path, [{"interval": "1m", "input_series": series(idle), "promql_expr_test": silence}])
