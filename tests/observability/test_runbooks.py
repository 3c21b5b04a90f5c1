"""The runbooks' commands name objects and labels that the rendered chart has.

What a reader fills in stands in capitals: RELEASE is filled in here as the chart is rendered, WORKER and NODE are found
with the commands before them.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from charts import PROVIDERS, Objects, helm_named, profile

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
KINDS = {"deploy": "Deployment", "cronjob": "CronJob", "job": "Job", "service": "Service", "statefulset": "StatefulSet"}
FOUND_BEFORE = {"WORKER", "NODE"}


@dataclass(frozen=True)
class Command:
    """One `kubectl` command of a runbook, with its variables filled in."""

    page: str
    words: tuple[str, ...]

    @property
    def verb(self) -> str:
        return next(word for word in self.words[1:] if not word.startswith("-") and word != "ns")

    @property
    def selectors(self) -> dict[str, str]:
        """Labels that it selects by."""
        chosen = [self.words[place + 1] for place, word in enumerate(self.words) if word in ("-l", "--selector")]
        return dict(one.split("=", 1) for chosen_one in chosen for one in chosen_one.split(","))

    @property
    def names(self) -> set[tuple[str, str]]:
        """Kinds and names of the objects that it names."""
        slashed = {tuple(word.split("/", 1)) for word in self.words if word.split("/", 1)[0] in KINDS and "/" in word}
        pairs = set(zip(self.words, self.words[1:], strict=False))
        apart = {(kind, name) for kind, name in pairs if kind in KINDS and name.startswith("r-")}
        return {(kind, name) for kind, name in {*slashed, *apart}}


def commands() -> list[Command]:
    """All that there are, in code blocks and within sentences."""
    (server,) = re.findall(r"^SERVER=(\S+)$", (RUNBOOKS / "README.md").read_text(), re.MULTILINE)
    found = []
    for page in sorted(RUNBOOKS.glob("*.md")):
        text = page.read_text()
        blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        lines = re.findall(r"^kubectl .*$", blocks, re.MULTILINE)
        lines += [re.sub(r"\s+", " ", one) for one in re.findall(r"`(kubectl [^`]*)`", prose)]
        for line in lines:
            filled = line.replace("$SERVER", server).replace("$NS", "ns").replace("RELEASE", "r")
            words = shlex.split(filled)
            end = next((place for place, word in enumerate(words) if word in ("|", "&", "--")), len(words))
            found.append(Command(page.stem, tuple(words[:end])))
    return found


COMMANDS = commands()


@pytest.fixture(scope="module", params=PROVIDERS)
def chart(request: pytest.FixtureRequest) -> Objects:
    """As release `r`, with everything that the runbooks speak of."""
    given = profile("small", f"--set=ray.provider={request.param}", "--set=registry.create=true", "--set=registry.url=",
                    "--set=retraining.enabled=true")  # fmt: skip
    return Objects(helm_named("helm4").template(*given))


def named(chart: Objects) -> set[tuple[str, str]]:
    return {(one["kind"], one["metadata"]["name"]) for one in chart.all if "name" in one["metadata"]}


def labelled(chart: Objects, kind: str) -> list[dict[str, Any]]:
    """Labels of the objects that `kubectl get KIND` would list."""
    if kind in ("pod", "pods"):
        return [template["metadata"].get("labels", {}) for _, template in chart.pods()]
    wanted = KINDS[kind.removesuffix("s")]
    return [one["metadata"].get("labels", {}) for one in chart.all if one["kind"] == wanted]


def test_there_are_commands_of_every_kind() -> None:
    assert len(COMMANDS) > 20
    assert {command.verb for command in COMMANDS} >= {"get", "describe", "logs", "exec", "port-forward", "top"}
    assert sum(bool(command.selectors) for command in COMMANDS) >= 7
    assert {kind for command in COMMANDS for kind, _ in command.names} >= {"deploy", "cronjob"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {' '.join(command.words[3:])}")
def test_what_a_command_names_is_in_the_chart(command: Command, chart: Objects) -> None:
    for kind, name in command.names:
        assert (KINDS[kind], name) in named(chart)
    capitals = {word for word in command.words if re.fullmatch(r"[A-Z]{3,}", word)}
    assert capitals <= FOUND_BEFORE, "to be filled in, and nobody says with what"
    if command.selectors:
        listing = command.verb in ("get", "describe", "top")
        kinds = command.words[command.words.index(command.verb) + 1] if listing else "pods"
        for kind in kinds.split(","):
            found = [one for one in labelled(chart, kind) if command.selectors.items() <= one.items()]
            assert found, f"no {kind} with {command.selectors}"


def test_pods_are_described_not_what_makes_them() -> None:
    """A Deployment's description knows nothing of memory, evictions or room."""
    described = [command for command in COMMANDS if command.verb == "describe"]
    assert described and all("pods" in command.words for command in described)


def test_nothing_asks_for_the_state_api() -> None:
    """The head of the chart's own Ray has no dashboard, without which there is none."""
    told = "\n".join(page.read_text() for page in RUNBOOKS.glob("*.md"))
    assert not re.findall(r"ray (?:list|get|summary|logs) ", told)


def test_a_name_that_a_label_has_is_the_chart_s(chart: Objects) -> None:
    """That the check above would notice: the label that the runbooks used to name is none."""
    pods = labelled(chart, "pods")
    assert not any(one.get("app.kubernetes.io/component") == "retrain" for one in pods)
    assert ("Deployment", "r-server") not in named(chart)
