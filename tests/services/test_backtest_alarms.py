"""Alarms on labelled readings: the figures are those of the two protocols, and no label helps to make an alarm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import streamrnn

from services.backtest.alarms import NoScore
from services.backtest.forecast import BacktestPlan, NothingToTest, backtest
from services.backtest.windows import Watched, figures, nab_score, ranges, told, windows
from services.cli.backtest import backtest as backtest_command
from services.datasets.series import Series
from services.tables.table_reader import Oddity, WrongTable

SMALL = {"hidden": 8, "linear": 2}
QUICK = {"updates": 60}
KEYS = {"precision", "recall", "f1", "nab_score", "detections", "alarms_per_1000"}


def marked(n: int, *found: tuple[int, int]) -> np.ndarray:
    label = np.zeros(n, np.bool_)
    for first, last in found:
        label[first : last + 1] = True
    return label


def loop(n: int = 3000, seed: int = 7) -> tuple[Series, np.ndarray]:
    """Three sensors that hang together; in the last fifth one of them shakes for 60 readings, and one jumps once."""
    random = np.random.default_rng(seed)
    x = np.zeros((n, 3))
    for t in range(1, n):
        x[t] = 0.7 * x[t - 1] + 0.2 * x[t - 1, ::-1] + random.normal(size=3)
    label = marked(n, (n - 450, n - 391), (n - 150, n - 150))
    x[n - 450 : n - 390, 1] += random.normal(0, 4, 60)
    x[n - 150] += 12
    return Series("loop", ("a", "b", "c"), 1.0, 1000 * np.arange(n), x.astype(np.float32), "00", "nobody"), label


def test_pointwise_figures_count_readings_and_detections_count_ranges() -> None:
    one = Watched(marked(100, (2, 5), (50, 59), (80, 80)), 40, marked(100, (55, 58), (62, 62))[40:])
    two = Watched(marked(50), 0, marked(50, (10, 10)))
    made = figures([one, two])
    assert set(made) == KEYS
    assert made["precision"] == pytest.approx(4 / 6, abs=1e-4) and made["recall"] == pytest.approx(4 / 11, abs=1e-4)
    assert made["f1"] == pytest.approx(8 / (8 + 2 + 7), abs=1e-4)
    assert made["detections"] == 1 and made["alarms_per_1000"] == pytest.approx(1000 * 2 / (49 + 50), rel=1e-3)


def test_nothing_labelled_and_nothing_alarmed_are_no_errors() -> None:
    quiet = Watched(marked(50), 0, marked(50))
    none = figures([quiet])
    assert none == dict.fromkeys(("precision", "recall", "f1", "nab_score")) | {"detections": 0, "alarms_per_1000": 0.0}
    missed = figures([replace(quiet, label=marked(50, (10, 20)))])
    assert (missed["precision"], missed["recall"], missed["f1"], missed["nab_score"]) == (0.0, 0.0, 0.0, 0.0)
    assert figures([replace(quiet, label=marked(50, (0, 49)))])["alarms_per_1000"] is None


def test_windows_are_widened_to_their_share_and_merged() -> None:
    assert ranges(marked(10, (0, 1), (5, 5), (9, 9))) == [(0, 1), (5, 5), (9, 9)]
    assert windows(marked(1000, (500, 500))) == [(451, 550)]  # a tenth of 1,000
    assert windows(marked(1000, (100, 299))) == [(100, 299)]  # never shortened
    assert windows(marked(1000, (500, 500), (540, 540))) == [(476, 565)]
    assert windows(marked(1000, (3, 3))) == [(0, 53)]
    assert windows(marked(10)) == []


def test_the_score_of_the_benchmark_is_that_of_its_formula() -> None:
    label = marked(1000, (500, 599))

    def score(*alarms: tuple[int, int]) -> float:
        made = nab_score([Watched(label, 200, marked(1000, *alarms)[200:])])
        assert made is not None
        return made

    def sigma(y: float) -> float:
        return float(2 / (1 + np.exp(5 * y)) - 1)

    assert score() == 0.0 and score((500, 500)) == 100.0
    assert score((500, 599)) == 100.0  # an alarm that goes on is told again within its window, not charged
    middle = sigma(-0.5) / sigma(-1)
    assert score((550, 550)) == pytest.approx(100 * (1 + middle) / 2, rel=1e-3)
    assert score((250, 250), (500, 500)) == pytest.approx(100 * (2 - 0.11) / 2, rel=1e-3)
    assert score((500, 500), (649, 649)) == pytest.approx(100 * (2 + 0.11 * sigma(50 / 99)) / 2, rel=1e-3)
    assert score((990, 990)) == pytest.approx(100 * -0.11 / 2, rel=1e-3)
    assert score((10, 10)) == 0.0  # before the part that is run
    assert told(marked(200, (10, 70), (100, 100))).tolist() == [10, 60]
    assert nab_score([Watched(marked(1000, (5, 10)), 200, marked(800))]) is None


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], np.ndarray, np.ndarray]:
    series, label = loop()
    folder = tmp_path_factory.mktemp("alarms")
    figures, (run,) = backtest([series], BacktestPlan(model=SMALL, recipe=QUICK), folder / "model", labels=[label])
    assert run.surprised is not None
    return figures, run.surprised.p, run.surprised.lasting


def test_faults_are_found_and_the_rest_keeps_the_budget(
    ran: tuple[dict[str, object], np.ndarray, np.ndarray],
) -> None:
    made, p, lasting = ran
    assert made["detections"] == 2 and made["recall"] > 0.5 and made["f1"] > 0.5, made  # type: ignore[operator]
    assert made["nab_score"] > 50, made  # type: ignore[operator]
    assert len(p) == len(lasting) == 600 and p[450] < 1e-4  # the jump, by itself
    normal = np.r_[p[:150], p[300:450], p[452:]]
    assert (normal <= 0.1).mean() < 0.2 and (normal <= 1e-3).sum() <= 3


def test_no_label_changes_what_is_said(ran: tuple[dict[str, object], np.ndarray, np.ndarray], tmp_path: Path) -> None:
    made, p, lasting = ran
    series, label = loop()
    other, (run,) = backtest([series], BacktestPlan(model=SMALL, recipe=QUICK), tmp_path / "m", labels=[~label])
    assert run.surprised is not None
    np.testing.assert_array_equal(run.surprised.p, p)
    np.testing.assert_array_equal(run.surprised.lasting, lasting)
    changed = {key for key in made if made[key] != other[key]}
    assert changed <= KEYS | {"train_seconds"}
    plain, (bare,) = backtest([series], BacktestPlan(model=SMALL, recipe=QUICK), tmp_path / "n")
    assert bare.surprised is None and not KEYS & set(plain)
    assert plain["model"] == made["model"] and plain["mse"] == pytest.approx(made["mse"], rel=1e-3)


def test_the_command_reads_a_table_of_the_water_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series, label = loop(1500)  # of the two faults the held-back part has the later one
    path, point = tmp_path / "loop.csv", np.diff(label.astype(int), prepend=0) > 0
    clock = [f"2026-03-09 {10 + t // 3600:02d}:{t // 60 % 60:02d}:{t % 60:02d}" for t in range(len(label))]
    lines = [
        f"{at};{x[0]:.5f};{x[1]:.5f};{x[2]:.5f};{mark:.1f};{change:.1f}"
        for at, x, mark, change in zip(clock, series.x, label, point, strict=True)
    ]
    path.write_text("datetime;a;b;c;anomaly;changepoint\n" + "\n".join(lines) + "\n")
    (tmp_path / "small.yaml").write_text(f"model: {json.dumps(SMALL)}\nrecipe: {json.dumps(QUICK)}\n")
    common = ["--time", "datetime", "--config", str(tmp_path / "small.yaml"), "--label", "anomaly", "--budget", "5"]
    done = streamrnn("backtest", str(path), *common, "--ignore", "changepoint", "--json")
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    made = json.loads(done.stdout)
    assert set(made["targets"]) == {"a", "b", "c"} and set(made) >= KEYS
    assert made["detections"] == 1 and made["readings"] == 300
    with pytest.warns(Oddity, match="'changepoint' is read as a feature, but holds only 0 and 1"):
        backtest_command(
            str(path), time_column="datetime", label="anomaly", budget=5.0, config=tmp_path / "small.yaml"
        )  # fmt: skip
    assert "alarms at a budget of 5 in 1,000" in capsys.readouterr().out.replace("\n", " ")


def test_mistakes_are_named(tmp_path: Path) -> None:
    rows = "\n".join(f"{1000 * t},{t % 7},0" for t in range(60))
    path, bad = tmp_path / "t.csv", tmp_path / "bad.csv"
    path.write_text("at,v,anomaly\n" + rows + "\n")
    bad.write_text("at,v,anomaly\n" + rows.replace("5000,5,0", "5000,5,maybe") + "\n")
    wrong: list[tuple[str, dict[str, Any], str]] = [
        (str(path), {"label": "anomali"}, "did you mean 'anomaly'"),
        (str(bad), {"label": "anomaly"}, "line 7, column 'anomaly': 'maybe' is neither 1 nor 0"),
        (str(path), {"budget": 2.0}, "--budget: is one of false alarms"),
        (str(path), {"label": "anomaly", "target": "anomaly"}, "is the label"),
        (str(path), {"label": "anomaly", "ignore": "w"}, "no column 'w'"),
        ("appliances", {"label": "anomaly"}, "--label: is for a file"),
    ]
    for what, arguments, sentence in wrong:
        with pytest.raises(WrongTable) as refused:
            backtest_command(what, time_column=None if what == "appliances" else "at", **arguments)
        assert sentence in str(refused.value)


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    series, label = loop(500)
    x = np.array(series.x)
    x[:350, 1] = np.nan
    with pytest.raises(NothingToTest, match="column 'b' holds no value in the first 70%"):
        backtest([replace(series, x=x)], BacktestPlan(), tmp_path / "m")
    x[:350, 1] = 3.0
    with pytest.raises(NothingToTest, match="'b' never changes in the first 70%"):
        backtest([replace(series, x=x)], BacktestPlan(targets=("b",)), tmp_path / "m")
    point = SMALL | {"head": "point"}
    with pytest.raises(NoScore, match=r"set model\.head to gaussian"):
        backtest([series], BacktestPlan(model=point, recipe=QUICK), tmp_path / "m", labels=[label])
