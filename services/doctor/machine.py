"""This machine: Python and what it brings, torch and its devices, disks, the port. May import fleet and brokers."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from services.doctor.lines import CheckResult, Target, size
from services.settings import Settings

SCARCE_BYTES, LOW_BYTES = 100 << 20, 1 << 30
RAY_FULL = 0.95
"""Ray's own threshold: beyond it, it stops spilling to a disk."""
SHM_BYTES = 100 << 20


def python(_: Target) -> Iterator[CheckResult]:
    """Python, and libraries without which everything works, but slowly."""
    from services.brokers.kafka_append import unfit

    yield CheckResult(
        "python",
        "ok",
        f"Python {platform.python_version()}, streamrnn {version('streamrnn')}, kafka-python {version('kafka-python')}",
    )
    if importlib.util.find_spec("crc32c") is None:
        yield CheckResult(
            "python",
            "warn",
            "there is no C library for the checksums of Kafka's records: reading is ten times slower without",
            "pip install 'kafka-python[crc32c]'.",
        )
    if why := unfit():
        yield CheckResult(
            "python",
            "warn",
            f"records are sent one by one, about 20 times slower: {why}",
            "Install the version of kafka-python that constraints.txt names.",
        )


def torch(patient: Target) -> Iterator[CheckResult]:
    """torch, its GPUs, and whether `device` can be had."""
    from services.fleet.assembly import device_of
    from services.fleet.devices import devices_here
    from services.predictor.ports import Refused

    settings, found = patient.settings, devices_here()
    gpus = ", ".join(f"{gpu.name} ({size(gpu.free_bytes)} of {size(gpu.total_bytes)} free)" for gpu in found.gpus)
    built = f"torch {found.torch}" + (f", made for CUDA {found.cuda}" if found.cuda else ", made for CPUs only")
    elsewhere = settings.fleet.ray_address is not None
    try:
        device = device_of(settings.device)
    except Refused as error:
        text, _, fix = str(error).partition("; ")
        yield CheckResult(
            "torch",
            "unknown" if elsewhere else "fail",
            f"{built}. {text}" + (". Shards run on Ray's nodes, which were not looked at" if elsewhere else ""),
            _sentence(fix),
        )
        return
    if device == "cpu" and not found.gpus and Path("/dev/nvidia0").exists():
        yield CheckResult(
            "torch",
            "warn",
            f"{built}; there is an NVIDIA GPU that it cannot use",
            "Install a torch for the CUDA of this driver (`nvidia-smi` names it), or a newer driver.",
        )
    else:
        yield CheckResult("torch", "ok", f"{built}; device {settings.device} is {device}{f': {gpus}' if gpus else ''}")
    cores, threads = len(os.sched_getaffinity(0)), settings.fleet.shards * settings.fleet.torch_threads
    if not elsewhere and device == "cpu" and threads > cores:
        yield CheckResult(
            "torch",
            "warn",
            f"{settings.fleet.shards} shards of {settings.fleet.torch_threads} threads share {cores} cores",
            "Lower fleet.shards or fleet.torch_threads; more shards than cores gain nothing.",
        )


def disk(patient: Target) -> Iterator[CheckResult]:
    """Room, and the right to write, where something of the pipeline will be written on this machine."""
    for name, place, needed in places(patient.settings):
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        usage = shutil.disk_usage(there)
        room = f"{name} {place}: {size(usage.free)} free"
        if not os.access(there, os.W_OK | os.X_OK):
            yield CheckResult(
                "disk",
                "fail",
                f"{name} {place} cannot be written by this user",
                f"Give this user {there}, or name another folder ({needed}).",
            )
        elif usage.free < SCARCE_BYTES:
            yield CheckResult(
                "disk", "fail", room, f"Make room on the disk of {there}, or name another folder ({needed})."
            )
        elif usage.free < LOW_BYTES or (name == "Ray's folder" and usage.used > RAY_FULL * usage.total):
            yield CheckResult("disk", "warn", room, f"Make room on the disk of {there} before it is full.")
        else:
            yield CheckResult("disk", "ok", room)


def places(settings: Settings) -> Iterator[tuple[str, Path, str]]:
    """What is written on this machine: its name, its folder, the setting that moves it."""
    registry, retrain = settings.registry, settings.retrain
    if registry is not None and "://" not in registry:
        yield "registry", Path(registry).expanduser().absolute(), "registry"
    elif registry is not None:
        import platformdirs

        yield "cache of models", Path(platformdirs.user_cache_dir("streamrnn", appauthor=False)), "XDG_CACHE_HOME"
    if registry is not None and (retrain.cron or retrain.on_drift):
        yield "runs", (retrain.runs or Path("runs")).absolute(), "retrain.runs"
    if settings.fleet.ray_address is None:
        yield "Ray's folder", Path(os.environ.get("RAY_TMPDIR", "/tmp")).absolute(), "RAY_TMPDIR"  # noqa: S108


def port(patient: Target) -> Iterator[CheckResult]:
    """Whether the page and the metrics can be served where the settings say."""
    host, number = patient.settings.telemetry.host, patient.settings.telemetry.port
    where = f"{host}:{number}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if number and _is_ours(host, number):
            yield CheckResult("port", "ok", f"telemetry.port {where}: a streamrnn server answers there")
        else:
            yield CheckResult(
                "port",
                "fail",
                f"telemetry.port {where} cannot be had: {error.strerror or error}",
                "Set another telemetry.port (0: any free one), or telemetry.host, or end what listens there.",
            )
    else:
        yield CheckResult(
            "port", "ok", f"telemetry.port {where} is free" if number else "telemetry.port is any free one"
        )


def _is_ours(host: str, number: int) -> bool:
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    name = f"[{here}]" if ":" in here else here
    with suppress(OSError, ValueError), urllib.request.urlopen(f"http://{name}:{number}/metrics", timeout=3) as answer:
        return b"streamrnn_build_info" in answer.read()
    return False


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""
