"""Where an archive lies: a folder of this machine, or an object store that `pyarrow.fs` knows by its URL.

Both publish a file whole or not at all. A folder also keeps a second archiver out; an object store cannot, there two
of them are found out by their files (see docs/archive.md).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from services.archive.layout import topic_folder

LOCK = ".lock"
PART = ".part"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class NotWritten(Exception):
    """A file could not be written, and nothing of it stays. Remedy: make room, or give another place; then go on."""


class ArchiveInUse(Exception):
    """Another archiver writes to this place. Remedy: let one of the two be."""


class ArchiveStorage(Protocol):
    """The folder of one topic."""

    where: str  # for messages

    def claim(self) -> None:
        """Makes it ours until `close`, and clears away what a killed archiver left half-written. Raises Taken."""

    def paths(self) -> list[str]:
        """All files, below the topic's folder; none if there is no such folder."""

    def publish(self, path: str, content: pa.Buffer) -> None:
        """Writes a file that was not there. Returns when it would survive a power cut. Raises NotWritten, Taken."""

    def open(self, path: str) -> Any:
        """A file for pyarrow to read; use it in a `with`."""

    def close(self) -> None: ...


def place(where: str | Path, topic: str) -> ArchiveStorage:
    """The place of a topic's archive below `where`. Raises NotWritten for a URL that cannot be used."""
    text = str(where)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    if "://" not in text:
        return ArchiveFolder(Path(text).expanduser() / topic_folder(topic))
    return ArchiveBucket(text, topic)


def topics(where: str | Path) -> list[str]:
    """Topics that have a folder below `where`."""
    text = str(where)
    if "://" in text and not text.startswith("file://"):
        system, path = _store(text)
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        names = [one.base_name for one in found]
    else:
        folder = Path(unquote(urlsplit(text).path) if text.startswith("file://") else text).expanduser()
        names = [one.name for one in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removeprefix("topic=") for name in names if name.startswith("topic="))


class ArchiveFolder:
    """See ArchiveStorage. The kernel drops the lock with the process: it keeps a second archiver out, never a killed
    one's successor.
    """

    def __init__(self, root: Path) -> None:
        self.where = str(root)
        self._root = root
        self._lock: int | None = None

    def claim(self) -> None:
        """See ArchiveStorage."""
        with self._written():
            self._root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 200, 0).decode(errors="replace").strip()
            self.close()
            raise ArchiveInUse(
                f"{self.where} is being written to by another archiver ({holder}); let one of the two be"
            ) from None
        except OSError as error:
            self.close()
            raise NotWritten(f"{self.where} cannot be locked ({error}); give a file system with locks") from error
        with suppress(OSError):  # what it says is for messages only
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        for left in self._root.glob(f".partition-*{PART}"):
            left.unlink()

    def paths(self) -> list[str]:
        """See ArchiveStorage. What a writer has under way is not among them."""
        found = []
        for folder, _, names in os.walk(self._root, onerror=_unless_missing):
            inside = Path(folder).relative_to(self._root)
            found += [(inside / name).as_posix() for name in names]
        return [path for path in found if path != LOCK and not (path.startswith(".partition-") and path.endswith(PART))]

    def publish(self, path: str, content: pa.Buffer) -> None:
        """See ArchiveStorage."""
        target = self._root / path
        part = self._root / f".{target.name}{PART}"
        with self._written():
            try:
                if not target.parent.is_dir():
                    target.parent.mkdir()
                    _settle(self._root)
                with part.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                _name(part, target)
            except FileExistsError:
                raise ArchiveInUse(
                    f"{self.where}/{path} is there already: another archiver writes here; stop one"
                ) from None
            finally:
                part.unlink(missing_ok=True)
            _settle(target.parent)

    def open(self, path: str) -> Any:
        """See ArchiveStorage."""
        return (self._root / path).open("rb")

    def close(self) -> None:
        """See ArchiveStorage. Never raises."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in NO_ROOM:
                why = f"there is no room ({error.strerror}). Make some, or move the archive; nothing half-written stays"
            else:
                why = f"{error.strerror or error} ({error.filename or self.where}). Nothing half-written stays"
            raise NotWritten(f"{self.where} cannot be written to: {why}") from error


class ArchiveBucket:
    """See ArchiveStorage. An object is there once its upload has ended: nothing half-written is seen, nothing locks."""

    def __init__(self, url: str, topic: str) -> None:
        self.where = f"{_shown(url)}/{topic_folder(topic)}"
        self._system, path = _store(url)
        self._root = f"{path.rstrip('/')}/{topic_folder(topic)}"

    def claim(self) -> None:
        """See ArchiveStorage. Keeps nobody out."""

    def paths(self) -> list[str]:
        """See ArchiveStorage."""
        selector = fs.FileSelector(self._root, allow_not_found=True, recursive=True)
        infos = [info for info in self._asked(self._system.get_file_info, selector) if info.type == fs.FileType.File]
        return [info.path[len(self._root.rstrip("/")) + 1 :] for info in infos]

    def publish(self, path: str, content: pa.Buffer) -> None:
        """See ArchiveStorage."""
        target = f"{self._root}/{path}"
        if self._asked(self._system.get_file_info, target).type != fs.FileType.NotFound:
            raise ArchiveInUse(f"{self.where}/{path} is there already: another archiver writes here; stop one of them")
        self._asked(self._write, target, content)

    def open(self, path: str) -> Any:
        """See ArchiveStorage."""
        return self._system.open_input_file(f"{self._root}/{path}")

    def close(self) -> None:
        """See ArchiveStorage."""

    def _write(self, target: str, content: pa.Buffer) -> None:
        self._system.create_dir(target.rpartition("/")[0], recursive=True)
        with self._system.open_output_stream(target, compression=None) as stream:
            stream.write(content)

    def _asked(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except (OSError, pa.ArrowException) as error:
            raise NotWritten(f"{self.where} does not do what is asked: {error}") from error


def _store(url: str) -> tuple[Any, str]:
    try:
        system, path = fs.FileSystem.from_uri(url)
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise NotWritten(f"{_shown(url)} cannot be used: {str(error).replace(url, _shown(url))}") from None
    return system, path


def _shown(url: str) -> str:
    """A URL without what can hold a secret: user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _name(part: Path, target: Path) -> None:
    """Gives the file its name, unless that name is taken: FileExistsError."""
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if target.exists():
            raise FileExistsError(target) from None
        part.rename(target)


def _settle(folder: Path) -> None:
    """The names in a folder survive a power cut from here on."""
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(at)
    finally:
        os.close(at)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
