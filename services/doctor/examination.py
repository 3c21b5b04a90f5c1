"""All checks, one after the other, each with a limit of time. Imports this room."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from services.doctor import broker, machine, models, nodes, records, rights, standing, topics
from services.doctor.lines import Check, CheckResult, Target
from services.redaction import scrubbed

CHECKS = (
    Check("python", machine.python),
    Check("torch", machine.torch),
    Check("ray", nodes.ray),
    Check("kafka", broker.kafka),
    Check("clock", broker.clock, needs=("kafka",)),
    Check("topics", topics.topics, needs=("kafka",)),
    Check("rights", rights.rights, needs=("kafka",)),
    Check("retention", topics.retention, needs=("kafka",)),
    Check("offsets", topics.offsets, needs=("kafka",)),
    Check("states", standing.states, needs=("kafka", "topics")),
    Check("records", records.records, needs=("kafka", "topics")),
    Check("model", models.model),
    Check("fit", models.fit, needs=("kafka", "model")),
    Check("disk", machine.disk),
    Check("port", machine.port),
)


def examined(patient: Target, checks: tuple[Check, ...] = CHECKS) -> Iterator[CheckResult]:
    """The lines of each check as soon as they are known. Never raises: what goes wrong is a line."""
    failed: set[str] = set()
    for check in checks:
        if lacking := failed.intersection(check.needs):
            name = min(lacking)
            yield CheckResult(check.name, "unknown", f"not looked at, for `{name}` has failed", f"See `{name}` above.")
            failed.add(check.name)
            continue
        lines = _in_time(check, patient)
        if any(line.level == "fail" for line in lines) or not lines:
            failed.add(check.name)
        yield from (replace(line, said=scrubbed(line.said), fix=scrubbed(line.fix)) for line in lines)


def _in_time(check: Check, patient: Target) -> list[CheckResult]:
    """What a check says within its limit. One that does not end is left to a thread that dies with the process."""
    said: list[CheckResult] = []
    done = threading.Event()

    def look() -> None:
        try:
            for line in check.look(patient):
                said.append(line)
        except Exception as error:  # the doctor goes on with the rest
            said.append(_of_error(check.name, error))
        finally:
            done.set()

    threading.Thread(target=look, name=f"doctor-{check.name}", daemon=True).start()
    if done.wait(patient.limit_s):
        return said
    late = CheckResult(
        check.name,
        "fail" if check.name == "kafka" else "unknown",
        f"no answer within {patient.limit_s:g} s",
        "Give it more time with --limit, or look at what it waits for.",
    )
    return [*said, late]


def _of_error(check: str, error: Exception) -> CheckResult:
    """Errors of our own rooms end with what to do, in a sentence or behind a semicolon; of others nobody knows."""
    text = " ".join(str(error).split()) or type(error).__name__
    if type(error).__module__.split(".")[0] not in ("services", "rnn") and not isinstance(error, OSError):
        return CheckResult(
            check, "unknown", f"{type(error).__name__}: {text}", "That was not foreseen; please report it."
        )
    found, mark, fix = text.partition(". ")
    if not mark:
        found, mark, fix = text.rpartition("; ")
    if not mark:
        return CheckResult(check, "fail", text.rstrip("."), "Put that right, and look again.")
    return CheckResult(check, "fail", found.rstrip("."), f"{fix[:1].upper()}{fix[1:].rstrip('.')}.")
