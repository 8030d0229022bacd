"""Files that are there whole or not at all, for nobody else's eyes, and locks between processes."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from contextlib import contextmanager
from io import FileIO
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
PART: Final = ".part"
"""The end of names of what is not whole yet."""
PART_SECONDS: Final = 3_600.0
"""A part that nobody has written to for so long is a dead process's."""


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, for this user alone, unless they are there."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(FOLDER_MODE, exist_ok=True)
        sync_folder(path.parent)
    return path


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def new_part(path: Path) -> Path:
    """Return the name of a part of `path`, of nobody else's."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")


class Part:
    """A file that is being written; a context manager. What is not kept is gone at the end."""

    def __init__(self, path: Path) -> None:
        """Prepare to write what will be `path`."""
        self._path = path
        self._part = new_part(path)
        self._file: FileIO | None = None
        self.bytes = 0

    def __enter__(self) -> Self:
        # An object, whose number a thread that writes late cannot mistake for another file's.
        self._file = FileIO(self._part, "x", opener=_open_private)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()
        self._part.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Append. Raises OSError."""
        written = 0
        while written < len(data):
            written += self._open.write(data[written:])
        self.bytes += written

    def keep(self, *, durable: bool = True) -> None:
        """Put it where it belongs, in place of what was there, after all of it is on the disk."""
        if durable:
            os.fsync(self._open.fileno())
        self._part.replace(self._path)
        if durable:
            sync_folder(self._path.parent)

    def keep_new(self) -> bool:
        """Put it where it belongs unless something is there; return whether it is there now."""
        os.fsync(self._open.fileno())
        try:
            os.link(self._part, self._path)
        except FileExistsError:
            return False
        sync_folder(self._path.parent)
        return True

    @property
    def _open(self) -> FileIO:
        if self._file is None:
            raise ValueError("a part that is not being written")
        return self._file


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace a file at once; unless `durable`, a crash of the machine may bring back the old."""
    with Part(path) as part:
        part.write(data)
        part.keep(durable=durable)


def write_new(path: Path, data: bytes) -> bool:
    """Write a file unless there is one; return whether it was written."""
    with Part(path) as part:
        part.write(data)
        return part.keep_new()


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other thread or process that shares the file system holds this. Blocks."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def drop_old_parts(folder: Path) -> None:
    """Remove what dead processes have left of files that never were whole."""
    oldest = time.time() - PART_SECONDS
    for path in folder.glob(f"*{PART}"):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except FileNotFoundError:
            continue


class Lock:
    """Held by one process of all that share the file system, and gone with it."""

    def __init__(self, file: int) -> None:
        """Hold what `take` has locked."""
        self._file = file

    @classmethod
    def take(cls, path: Path) -> Lock | None:
        """Return the lock of a path; None if somebody holds it. Raises OSError."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        except BaseException:
            os.close(file)
            raise
        return cls(file)

    def free(self) -> None:
        """Let others have it."""
        os.close(self._file)
