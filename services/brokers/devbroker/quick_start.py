"""The JVM's ahead-of-time cache for Kafka: made once in a rehearsal, it takes a start from about 3 s to about 1 s.

Lives here: the cache's name, making it, the flags that use it. A convenience only: where it cannot be made, or does not
fit the JVM, Kafka starts without it. Imports the standard library and `jars`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from services.brokers.devbroker import jars
from services.brokers.devbroker.errors import DevBrokerError

_log = logging.getLogger(__name__)


def archive_flags(
    cache: Path, jvm: Sequence[str], class_path: Sequence[Path], rehearse: Callable[[list[str]], None]
) -> list[str]:
    """Flags, beside `jvm`, for a quick start; makes the archive first where it is missing.

    `rehearse(flags)` has to run a broker with these flags once, from start to ordered end.
    """
    archive = jars.kafka_cache(cache) / f"quick-start-{_fingerprint(jvm, class_path)}.aot"
    if not archive.exists():
        try:
            with jars.locked(archive.with_name("lock")):
                if not archive.exists():
                    _make(archive, rehearse)
        except OSError as error:
            _log.info("no quick start for the broker: the cache cannot be written (%s)", error)
            return []
    # An empty archive: making it has failed here before.
    return [f"-XX:AOTCache={archive}", "-Xlog:aot*=error"] if archive.stat().st_size else []


def _make(archive: Path, rehearse: Callable[[list[str]], None]) -> None:
    _log.info("first start on this machine: preparing quick starts of Kafka, about 10 s")
    fresh = archive.with_name(f".{archive.name}.part")
    fresh.unlink(missing_ok=True)
    try:
        rehearse([f"-XX:AOTCacheOutput={fresh}", "-Xlog:aot*=error"])
        fresh.replace(archive)
    except (DevBrokerError, FileNotFoundError) as error:
        _log.info("no quick start for the broker: %s", error)
        archive.touch()


def _fingerprint(jvm: Sequence[str], class_path: Sequence[Path]) -> str:
    """Of all that the JVM compares before it uses an archive: itself, its flags, and each jar's path and time."""
    parts = [(jars.java().parent.parent / "release").read_text(), *jvm]
    parts += [f"{jar} {jar.stat().st_mtime_ns} {jar.stat().st_size}" for jar in class_path]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
