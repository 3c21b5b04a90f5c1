"""Where a registry's files lie: a folder, or an object store through fsspec. The only module that imports fsspec.

Both give the same four promises, and nothing else in this room knows which of the two it has. Standard library, and
fsspec inside of functions.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from services.redaction import masked, scrubbed
from services.registry.problems import Unreachable, WrongRegistry

T = TypeVar("T")

EXCLUSIVE = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs",
             "az": "adlfs", "memory": "fsspec"}  # fmt: skip
"""Protocols whose fsspec package turns `create` into a conditional put -> that package."""

_TEMPORARY = ".tmp"


class Storage(Protocol):
    """Files by name, with slashes. Every call raises Unreachable where the place cannot be reached."""

    where: str  # for people: no secret is in it

    def read(self, name: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""

    def create(self, name: str, content: bytes) -> bool:
        """Writes a new file; False if there is one. Of several that try, one succeeds; nobody sees a half file."""

    def put(self, name: str, content: bytes) -> None:
        """Writes a file, also over another one; nobody sees a half file."""

    def files(self, under: str) -> dict[str, int]:
        """Names of all files below `under`, sorted, with their bytes; none where nothing is."""

    def remove(self, name: str) -> None:
        """Removes a file; nothing happens where there is none."""

    def folder(self, name: str) -> Path | None:
        """Where the files below `name` lie on this machine; None where they do not."""

    def sweep(self, older_than_s: float) -> None:
        """Removes what writers that were killed left half written."""


def place_of(where: str | Path) -> Storage:
    """A folder's path or `file://` URL, or the URL of an object store. Raises WrongRegistry for any other."""
    text = str(where)
    protocol, mark, rest = text.partition("://")
    if not mark:
        if not text.strip():
            raise WrongRegistry("The registry's place is empty. Name a folder or a URL, such as s3://bucket/models.")
        return FolderStorage(Path(where))
    if protocol in ("file", "local"):
        return FolderStorage(Path("/" + rest.lstrip("/")))
    return ObjectStorage(text)


class FolderStorage:
    """A folder of a file system with hard links: a new file is linked to its name when it is whole and on the disk."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root.expanduser()))
        self.where = str(self._root)
        if self._root.exists() and not self._root.is_dir():
            raise WrongRegistry(f"{self.where} is a file. Name the folder of a registry, or a new one.")

    def read(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(name) from None
        except OSError as error:
            raise Unreachable(f"{self._root / name} cannot be read: {error.strerror or error}.") from error

    def create(self, name: str, content: bytes) -> bool:
        return self._written(name, content, self._link)

    def put(self, name: str, content: bytes) -> None:
        self._written(name, content, self._replace)

    def files(self, under: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for folder, _, names in os.walk(self._root / under):
            if _TEMPORARY in Path(folder).parts[-1:]:
                continue
            for name in names:
                path = Path(folder, name)
                try:
                    found[path.relative_to(self._root).as_posix()] = path.stat().st_size
                except FileNotFoundError:  # removed while we look
                    continue
        return dict(sorted(found.items()))

    def remove(self, name: str) -> None:
        path = self._root / name
        try:
            path.unlink(missing_ok=True)
            path.parent.rmdir()
        except OSError:
            if path.exists():
                raise Unreachable(f"{path} cannot be removed. Look at who owns it.") from None

    def folder(self, name: str) -> Path | None:
        return self._root / name

    def sweep(self, older_than_s: float) -> None:
        for path in (self._root / _TEMPORARY).glob("*"):
            try:
                if time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink()
            except OSError:  # another sweeper's, or a writer that has just finished
                continue

    def _written(self, name: str, content: bytes, finish: Callable[[Path, Path], bool]) -> bool:
        target = self._root / name
        fresh = self._root / _TEMPORARY / secrets.token_hex(8)
        try:
            fresh.parent.mkdir(parents=True, exist_ok=True)
            try:
                with fresh.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                target.parent.mkdir(parents=True, exist_ok=True)
                done = finish(fresh, target)
                if done:
                    for folder in (target.parent, target.parent.parent):  # the name, and the name of its folder
                        _flush(folder)
                return done
            finally:
                fresh.unlink(missing_ok=True)
        except OSError as error:
            raise Unreachable(
                f"{target} cannot be written: {error.strerror or error}. Free some space or look at the folder's "
                "rights; a registry's folder wants a file system with hard links."
            ) from error

    @staticmethod
    def _link(fresh: Path, target: Path) -> bool:
        try:
            os.link(fresh, target)
        except FileExistsError:
            return False
        return True

    @staticmethod
    def _replace(fresh: Path, target: Path) -> bool:
        fresh.replace(target)
        return True


class ObjectStorage:
    """An object store whose fsspec package puts an object only if there is none: see `EXCLUSIVE`.

    A store that ignores the condition, as some S3 servers do, is found out at the first write and refused.
    """

    def __init__(self, url: str) -> None:
        protocol = url.partition("://")[0]
        self.where = str(masked("", url)).rstrip("/")
        if protocol not in EXCLUSIVE:
            raise WrongRegistry(
                f"{self.where}: nothing is known of exclusive writes to {protocol}://, without which two trainers "
                f"could overwrite each other. Use a folder, or one of {', '.join(f'{name}://' for name in EXCLUSIVE)}."
            )
        import fsspec

        try:
            self._store, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise WrongRegistry(f"{self.where} needs a package: pip install {EXCLUSIVE[protocol]} ({error})") from None
        except Exception as error:
            raise WrongRegistry(f"{self.where} is no place that fsspec understands: {_said(error)}") from None
        self._root = self._root.rstrip("/")
        self._tried = False

    def read(self, name: str) -> bytes:
        return self._asked(lambda: bytes(self._store.cat_file(self._path(name))))

    def create(self, name: str, content: bytes) -> bool:
        if not self._tried:
            probe = f".probe/{secrets.token_hex(8)}"
            told = [self._create(probe, b""), self._create(probe, b"")]
            self.remove(probe)
            if told != [True, False]:
                raise WrongRegistry(
                    f"{self.where} overwrites objects that it was asked to create: two trainers could lose each "
                    "other's aliases. Use a store with conditional puts (If-None-Match), or a folder."
                )
            self._tried = True
        return self._create(name, content)

    def put(self, name: str, content: bytes) -> None:
        self._written(name, content, "overwrite")

    def files(self, under: str) -> dict[str, int]:
        def found() -> dict[str, Any]:
            self._store.invalidate_cache()
            return dict(self._store.find(self._path(under), detail=True))

        try:
            listed = self._asked(found)
        except FileNotFoundError:
            return {}
        names = {name[len(self._root) :].lstrip("/"): int(info.get("size") or 0) for name, info in listed.items()}
        return dict(sorted((name, size) for name, size in names.items() if not name.startswith(".probe/")))

    def remove(self, name: str) -> None:
        try:
            self._asked(lambda: self._store.rm_file(self._path(name)))
        except FileNotFoundError:
            return

    def folder(self, name: str) -> Path | None:
        return None

    def sweep(self, older_than_s: float) -> None:
        """Nothing: an upload that was cut off is no object. Let the bucket's own rule drop unfinished uploads."""

    def _create(self, name: str, content: bytes) -> bool:
        try:
            self._written(name, content, "create")
        except FileExistsError:
            return False
        return True

    def _written(self, name: str, content: bytes, mode: str) -> None:
        try:
            self._asked(lambda: self._store.pipe_file(self._path(name), content, mode=mode))
        except FileNotFoundError:
            raise Unreachable(f"{self.where}: there is no such bucket or container. Make it first.") from None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (FileNotFoundError, FileExistsError, MemoryError):
            raise
        except Exception as error:  # each store's own: no credentials, no network, no such bucket
            raise Unreachable(f"{self.where} cannot be reached: {_said(error)}") from None


def _said(error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return scrubbed(text)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
