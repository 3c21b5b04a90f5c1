"""What the CronJob's pod makes, keeps and deletes, against an API of RayJobs in memory."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from charts import Helm, Objects, profile

ASKED = ("--set=ray.provider=kuberay,registry.create=true,registry.url=,retraining.enabled=true",)


class Api:
    """RayJobs by name, each a second younger than the one before."""

    def __init__(self, may_delete: list[str]) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []
        self._may_delete, self._seconds = may_delete, 0

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        name = path.partition("?")[0].rpartition("/")[2]
        if "/cronjobs/" in path:
            return {"metadata": {"uid": "1-2"}}
        if method == "DELETE":
            assert name in self._may_delete, f"may not delete {name}"
            self.deleted.append(name)
            return self.jobs.pop(name)
        if method == "POST":
            made = copy.deepcopy(body)
            assert made["metadata"]["name"] not in self.jobs, "409"
            self._seconds += 1
            made["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:{self._seconds:02}Z"
            return self.jobs.setdefault(made["metadata"]["name"], made)
        return {"items": list(self.jobs.values())}

    def end(self, how: str) -> None:
        for job in self.jobs.values():
            job["status"] = {"jobDeploymentStatus": how}


@pytest.fixture(scope="module")
def objects(newest: Helm) -> Objects:
    return Objects(newest.template(*profile("small", *ASKED)))


@pytest.fixture
def maker(objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Api]:
    """The program as the ConfigMap has it, with that ConfigMap's RayJob and the rights of the Role."""
    given = objects.one("ConfigMap", "-rayjob")["data"]
    (tmp_path / "rayjob.json").write_text(given["rayjob.json"])
    (tmp_path / "namespace").write_text("ns")
    monkeypatch.setenv("CRONJOB", "r-streamrnn-retraining")
    monkeypatch.setenv("ACCOUNT", str(tmp_path))
    program = ModuleType("make_rayjob")
    exec(compile(given["make_rayjob.py"], "make_rayjob.py", "exec"), program.__dict__)
    (names,) = [rule["resourceNames"] for rule in objects.one("Role")["rules"] if rule["verbs"] == ["delete"]]
    api = Api(names)
    monkeypatch.setattr(program, "ask", api.ask)
    return (lambda: program.main(str(tmp_path / "rayjob.json"))), api


def test_the_last_three_are_kept_and_names_take_turns(maker: tuple[Any, Api]) -> None:
    make, api = maker
    for _ in range(9):
        make()
        assert len(api.jobs) <= 3
        api.end("Complete")
    assert sorted(one["metadata"]["creationTimestamp"][-3:-1] for one in api.jobs.values()) == ["07", "08", "09"]
    assert len(api.deleted) == 6
    owner = next(iter(api.jobs.values()))["metadata"]["ownerReferences"][0]
    assert owner["kind"] == "CronJob" and owner["uid"] == "1-2"


@pytest.mark.parametrize("how", ["", "Initializing", "Running", "Waiting", "Retrying", "Suspending", "Suspended"])
def test_one_that_has_not_ended_stays_the_only_one(
    maker: tuple[Any, Api], how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, api = maker
    make()
    api.end(how)
    make()
    assert len(api.jobs) == 1 and not api.deleted
    assert f"has not ended ({how or 'not begun'})" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["Complete", "Failed", "ValidationFailed"])
def test_one_that_has_ended_however_is_followed_by_another(maker: tuple[Any, Api], how: str) -> None:
    make, api = maker
    make()
    api.end(how)
    make()
    assert len(api.jobs) == 2


def test_what_others_made_is_left_alone(maker: tuple[Any, Api]) -> None:
    make, api = maker
    for number in range(5):
        api.ask("POST", "/rayjobs", {"metadata": {"name": f"theirs-{number}"}})
    api.end("Complete")
    make()
    assert len(api.jobs) == 6 and not api.deleted


def test_names_that_are_all_taken_are_said(maker: tuple[Any, Api]) -> None:
    make, api = maker
    for number in range(4):
        going = {"name": f"r-streamrnn-retrain-{number}", "deletionTimestamp": "2026-01-01T00:00:00Z"}
        api.ask("POST", "/rayjobs", {"metadata": going})
    api.end("Complete")
    with pytest.raises(SystemExit, match="no name is free among r-streamrnn-retrain-0"):
        make()


@pytest.mark.parametrize("name", ["r", "a-name-as-long-as-helm-allows-it-" + "x" * 19])
def test_a_name_is_no_longer_than_the_operator_takes(newest: Helm, name: str) -> None:
    given = newest.template(*profile("small", *ASKED), release=name)
    job = json.loads(Objects(given).one("ConfigMap", "-rayjob")["data"]["rayjob.json"])
    assert len(job["metadata"]["name"]) + len("-0") <= 47
