"""Ray: its version here and there, whether it answers, whether it has room. May import fleet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from services.doctor.lines import CheckResult, Target, size
from services.doctor.machine import SHM_BYTES


def ray(patient: Target) -> Iterator[CheckResult]:
    """The Ray that `fleet.ray_address` names; where it names none, whether one can be started here."""
    here, address = version("ray"), patient.settings.fleet.ray_address
    if address is None:
        yield CheckResult("ray", "ok", f"Ray {here} will be started on this machine")
        yield from _shared_memory()
    elif address.startswith("ray://"):
        yield from _client(address, here)
    else:
        yield from _head(patient, address, here)


def _shared_memory() -> Iterator[CheckResult]:
    place = Path("/dev/shm")  # noqa: S108  Ray's own
    free = shutil.disk_usage(place).free if place.is_dir() else 0
    if free < SHM_BYTES:
        yield CheckResult(
            "ray",
            "warn",
            f"{place} has {size(free)} free; Ray wants {size(SHM_BYTES)} of it",
            "Mount a larger one: an emptyDir of medium Memory in a pod, --shm-size with Docker.",
        )


def _client(address: str, here: str) -> Iterator[CheckResult]:
    from services.fleet.ray_head import answers

    if answers(address.removeprefix("ray://")):
        yield CheckResult(
            "ray",
            "unknown",
            f"Ray {here} here; the port of {address} is open, but a Ray of this kind says "
            "nothing of itself to who does not join it",
            "Its Ray and Python must be of the same versions.",
        )
    else:
        yield CheckResult(
            "ray", "fail", f"nothing listens at {address}", "Start that Ray, or correct fleet.ray_address."
        )


def _head(patient: Target, address: str, here: str) -> Iterator[CheckResult]:
    from services.fleet.ray_head import answers
    from services.fleet.ray_probe import heads_here, look

    if address == "auto":
        found = [os.environ["RAY_ADDRESS"]] if os.environ.get("RAY_ADDRESS") else heads_here()
        found = [one for one in found if answers(one)]
        if len(found) != 1:
            what = f"{len(found)} Rays run here: {', '.join(found)}" if found else "no Ray runs on this machine"
            yield CheckResult(
                "ray",
                "fail",
                f"fleet.ray_address is auto, but {what}",
                "Set fleet.ray_address to HOST:6379 of the head, or start a node here with `ray start`.",
            )
            return
        address = found[0]
    if not answers(address):
        yield CheckResult(
            "ray",
            "fail",
            f"nothing listens at {address}",
            "Start the head with `ray start --head`, or correct fleet.ray_address.",
        )
        return
    found_there = look(address, patient.limit_s / 2)
    if found_there.ray and found_there.ray != here:
        yield CheckResult(
            "ray",
            "fail",
            f"Ray {here} here, Ray {found_there.ray} at {address}",
            f"Install the same on both sides, for instance pip install ray=={found_there.ray}.",
        )
        return
    there = found_there.ray or "of a version that it does not tell"
    room = found_there.room
    yield CheckResult(
        "ray",
        "ok",
        f"Ray {there} with Python {found_there.python or '?'} at {address}: {found_there.nodes} "
        f"nodes, {room.get('CPU', 0):g} CPUs, {room.get('GPU', 0):g} GPUs",
    )
    fleet = patient.settings.fleet
    for name, each in (("CPU", fleet.cpus_per_shard), ("GPU", fleet.gpus_per_shard)):
        if room and each * fleet.shards > room.get(name, 0):
            yield CheckResult(
                "ray",
                "warn",
                f"{fleet.shards} shards reserve {each * fleet.shards:g} {name}s, and Ray has "
                f"{room.get(name, 0):g}: some will wait until it has more",
                f"Add nodes, or lower fleet.shards or fleet.{name.lower()}s_per_shard.",
            )
