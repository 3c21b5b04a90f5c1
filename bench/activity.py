"""Activity recognition on people never met: the network of examples/activity beside logistic regression.

    python -m bench.activity          # five trainings, about six minutes on one core; 11 MB to download the first time

Five folds; each holds two of the ten people back. Both are asked at the end of every second second, at the same places.
The regression (mean, deviation, least and greatest value of each axis over these two seconds; weights shrunk by 0.001)
sees two seconds at a time; "so far" multiplies up its probabilities from the recording's beginning, which gives it a
memory, too. The network runs through the engine that serves. Writes bench/results/activity.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve.build import engine_of
from rnn.train.dataset import LabeledSeries
from rnn.train.learn import learn
from rnn.train.practice import Practice
from services.datasets.labelled import Recording, watch
from services.settings.training import training_file

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "activity.json"
WINDOW = 100  # readings, two seconds
FOLDS = 5
SHRINKAGE = 1e-3


def statistics(one: Recording) -> NDArray[np.float64]:
    """Of each whole window: mean, deviation, least, greatest of each axis. [windows, 24]"""
    whole = one.x[: len(one.x) // WINDOW * WINDOW].reshape(-1, WINDOW, one.x.shape[1]).astype(np.float64)
    return np.concatenate([whole.mean(1), whole.std(1), whole.min(1), whole.max(1)], axis=1)


def logistic(train: Sequence[Recording], test: Sequence[Recording]) -> tuple[float, float]:
    """(share right from a window alone, from all windows so far)."""
    seen = np.concatenate([statistics(one) for one in train])
    classes = np.concatenate([np.full(len(one.x) // WINDOW, one.label[0]) for one in train])
    mean, std = seen.mean(0), seen.std(0)
    torch.manual_seed(0)
    model = torch.nn.Linear(seen.shape[1], len(train[0].labels), dtype=torch.float64)
    x, truth = torch.from_numpy((seen - mean) / std), torch.from_numpy(classes)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def cost() -> torch.Tensor:
        optimiser.zero_grad()
        nats = torch.nn.functional.cross_entropy(model(x), truth) + SHRINKAGE * model.weight.square().sum()
        nats.backward()
        return nats

    optimiser.step(cost)
    right = np.zeros(3)
    for one in test:
        with torch.no_grad():
            log_p = torch.log_softmax(model(torch.from_numpy((statistics(one) - mean) / std)), 1).numpy()
        found = [(said.argmax(1) == one.label[0]).sum() for said in (log_p, log_p.cumsum(0))]
        right += (*found, len(log_p))
    return float(right[0] / right[2]), float(right[1] / right[2])


def examples(one: Recording) -> LabeledSeries:
    """A recording is a sequence with a truth at each reading."""
    end = np.zeros(len(one.x), np.uint8)
    end[-1] = 1
    return LabeledSeries(one.x, one.at_ms, end, one.label.astype(np.float32)[:, None])


def share_right(network: Network, test: Sequence[Recording]) -> float:
    """Of the labels at the windows' last readings, all recordings served side by side."""
    stream = np.repeat(np.arange(len(test)), [len(one.x) for one in test])
    step = np.concatenate([np.arange(len(one.x)) for one in test])
    order = np.lexsort((stream, step))
    given = [examples(one) for one in test]
    x, at_ms, end, truth = (
        np.concatenate([getattr(one, name) for one in given])[order] for name in ("x", "at_ms", "end", "truth")
    )
    engine = engine_of(network, len(test))
    said = engine.run(stream[order], x, at_ms, np.full(len(order), -1), end=end).y
    asked = step[order] % WINDOW == WINDOW - 1
    return float((said[asked, 0] == truth[asked, 0]).mean())


def main() -> None:
    """Prints a line for each fold, then the means."""
    plan = training_file(ROOT / "examples" / "activity" / "config.yaml")
    found = watch()
    people = sorted({one.group for one in found}, key=lambda name: int(name.partition("-")[2]))
    config = ModelConfig.from_tree({
        "features": found[0].features, "labels": found[0].labels, "head": "categorical",
        "interval_s": found[0].interval_s, **plan.model,
    })  # fmt: skip
    folds = []
    for fold in range(FOLDS):
        held = people[fold::FOLDS]
        train, test = ([one for one in found if (one.group in held) == late] for late in (False, True))
        alone, so_far = logistic(train, test)
        learned = learn(
            config, list(map(examples, train)), Practice(**plan.recipe), groups=[one.group for one in train]
        )
        folds.append({
            "held_back": held,
            "windows": sum(len(one.x) // WINDOW for one in test),
            "logistic": round(alone, 4),
            "logistic_so_far": round(so_far, 4),
            "network": round(share_right(learned.network, test), 4),
            "train_seconds": round(learned.epochs[-1].seconds, 1),
        })  # fmt: skip
        print(json.dumps(folds[-1]), flush=True)
    names = ("logistic", "logistic_so_far", "network")
    mean = {name: round(float(np.mean([one[name] for one in folds])), 4) for name in names}
    print(json.dumps({"mean": mean}))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"mean": mean, "folds": folds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
