"""Real processes at once, and real SIGKILLs at every write: nothing half made is seen, nothing missing is named."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rnn.io import weights
from services.registry import Registry

WHO = {"reason": "test", "by": "me"}
ROOT = Path(__file__).parents[2]

QUICK = """
import json, sys
from services.registry import Conflict, Registry

where, name, *models = sys.argv[1:]
registry, won, lost = Registry(where), 0, 0
sys.stdin.readline()
while won < 15:
    seen = registry.aliases()
    try:
        registry.promote(models[(models.index(seen.champion) + 1) % 2], reason=name, by=name, seen=seen)
        won += 1
    except Conflict:
        lost += 1
print(json.dumps({"lost": lost}))
"""

PUBLISH = """
import json, sys
from pathlib import Path
from services.registry import Conflict, Registry

where, folder, same = sys.argv[1:]
registry = Registry(where)
seen = registry.aliases()
print("ready", flush=True)
sys.stdin.readline()
registry.add(Path(same), reason="the same for all", by=folder)
model = registry.add(Path(folder), reason="mine", by=folder).model
try:
    registry.challenge(model, reason="mine", by=folder, seen=seen)
    print(json.dumps({"model": model, "won": True}))
except Conflict as error:
    print(json.dumps({"model": model, "won": False, "why": str(error)}))
"""

KILLED = """
import json, os, signal, sys
from pathlib import Path

import torch
from rnn.io import weights
from services.registry import ModelUnknown, Conflict, Registry

torch.set_num_threads(1)
where, first, second, third = sys.argv[1:]
WHO = {"reason": "test", "by": "me"}


def life(place):
    now = [0]
    registry = Registry(place, clock_ms=lambda: now[0])
    a = registry.add(Path(first), **WHO).model
    registry.promote(a, **WHO)
    c = registry.add(Path(third), **WHO).model
    registry.add_verdict(c, {"verdict": "rejected"})
    now[0] = 10_000
    b = registry.add(Path(second), **WHO).model
    registry.challenge(b, **WHO)
    registry.promote(b, **WHO)
    assert registry.collect(older_than_s=5.0) == [c]


def killed_at(place, number):
    count = [0]

    def look(event, args):
        if event in ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            if str(args[0]).startswith(place) and (event != "open" or "x" in (args[1] or "")):
                count[0] += 1
                if count[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    life(place)


def what_is_left(place):
    registry = Registry(place, clock_ms=lambda: 10_000_000)
    seen = registry.aliases()
    for model in sorted(seen.named()):
        weights.load(registry.folder(model))
    for entry in registry.models():
        if entry.model not in seen.leaving:
            assert entry.problem is None
            weights.load(registry.folder(entry.model))
    registry.collect(older_than_s=0.0)
    last = registry.aliases()
    assert last.leaving == () and last.named() == seen.named()
    assert {one.model for one in registry.models()} == last.named()
    assert {path.name for path in Path(place).glob("models/*")} == last.named()
    assert not list(Path(place).glob(".tmp/*"))
    registry.promote(registry.add(Path(third), **WHO).model, **WHO)
    registry.history()


for number in range(1, 10_000):
    place = f"{where}/{number}"
    pid = os.fork()
    if not pid:
        killed_at(place, number)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status):
        assert status == 0
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    what_is_left(place)
print(json.dumps({"kills": number - 1}))
"""


def start(code: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], cwd=ROOT, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip


def results(running: list[subprocess.Popen[str]]) -> list[dict]:
    try:
        told = [one.communicate()[0] for one in running]
        assert [one.returncode for one in running] == [0] * len(running)
        return [json.loads(text.splitlines()[-1]) for text in told]
    finally:
        for one in running:
            one.kill()


def test_of_changes_made_at_once_none_is_lost(tmp_path: Path, make_model):
    registry = Registry(tmp_path / "registry")
    models = [registry.add(make_model(seed), **WHO).model for seed in (1, 2)]
    registry.promote(models[0], **WHO)
    running = [start(QUICK, registry.where, name, *models) for name in ("x", "y", "z")]
    for one in running:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    told = results(running)
    history = registry.history()
    assert [one.version for one in history] == list(range(1, 47))
    assert {name: sum(one.by == name for one in history) for name in "xyz"} == {"x": 15, "y": 15, "z": 15}
    for before, after in itertools.pairwise(history):  # each was made of the one before it
        assert after.aliases.previous == before.aliases.champion != after.aliases.champion
    print("conflicts", told)


def test_of_two_trainers_who_publish_at_once_both_models_are_there_and_one_challenges(tmp_path: Path, make_model):
    registry = Registry(tmp_path / "registry")
    registry.promote(registry.add(make_model(1), **WHO).model, **WHO)
    same = make_model(9)
    running = [start(PUBLISH, registry.where, make_model(seed), same) for seed in (2, 3)]
    for one in running:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    for one in running:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    told = results(running)
    (won,), (lost,) = ([one for one in told if one["won"] is which] for which in (True, False))
    assert registry.aliases().challenger == won["model"] and registry.aliases().version == 2
    assert "are no longer those of change 1" in lost["why"] and "has challenged (mine)" in lost["why"]
    assert len(registry.models()) == 4
    for one in registry.models():
        assert weights.load(registry.folder(one.model))[1].model == one.model


@pytest.mark.chaos
def test_a_kill_at_any_write_leaves_a_registry_that_goes_on(tmp_path: Path, make_model):
    """SIGKILL at each file that is made, linked, renamed or removed while models are added, promoted and collected."""
    folders = [make_model(seed) for seed in (1, 2, 3)]
    for folder in folders:
        (folder / "report.json").write_text("{}")
    told = results([start(KILLED, tmp_path / "registries", *folders)])
    print(told)
    assert told[0]["kills"] > 60
