"""One adapter's folder on disk: found and read so that nothing outside it can be reached."""

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from aril.worker.adapters.faults import AdapterFault

CONFIG_FILE: Final = "adapter_config.json"
TENSORS_FILE: Final = "adapter_model.safetensors"
_PICKLE_FILE: Final = "adapter_model.bin"


class FileVersion(NamedTuple):
    """What changes whenever a file's content does, known without reading it."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """`<home>/<name>`: links are followed only where they stay in `home`, its owner's folder."""

    home: Path
    path: Path

    @classmethod
    def find(cls, home: Path, name: str) -> "AdapterFolder | None":
        """Return the folder of `name`, a valid adapter name; None if there is none.

        `home` is absolute and free of links up to its last part.
        """
        place = home / name
        if not os.path.lexists(place):
            return None
        path = _resolve(home, place)
        if not path.is_dir():
            raise AdapterFault("is not a folder")
        return cls(home, path)

    def version(self, others: Iterable[str] = ()) -> tuple[FileVersion | None, ...]:
        """Return the versions of configuration and tensors, and of others; None for no file."""
        wanted = [self._stat(file) for file in (CONFIG_FILE, TENSORS_FILE)]
        return (*wanted, *(self._stat(file) if self.has(file) else None for file in others))

    def has(self, file: str) -> bool:
        """Whether there is something of that name."""
        return os.path.lexists(self.path / file)

    def read(self, file: str, limit: int) -> bytes:
        """Return the content of `file`; AdapterFault if it has more than `limit` bytes."""
        path = self._locate(file)
        # The path is resolved: a link there now was put there since.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            # Not the limit alone: memory is taken for as much as is asked for.
            data = stream.read(min(limit, size) + 1)
        if len(data) > limit:
            raise AdapterFault(f"{file} is too large in bytes", limit=limit, given=size)
        return data

    def _stat(self, file: str) -> FileVersion:
        found = self._locate(file).stat()
        return FileVersion(
            found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        )

    def _locate(self, file: str) -> Path:
        place = self.path / file
        if not os.path.lexists(place):
            if file == TENSORS_FILE and os.path.lexists(self.path / _PICKLE_FILE):
                raise AdapterFault(f"{_PICKLE_FILE} is a pickle; only {TENSORS_FILE} is read")
            raise AdapterFault(f"{file} is missing")
        path = _resolve(self.home, place)
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise AdapterFault(f"{file} is not a file")
        return path


def _resolve(home: Path, place: Path) -> Path:
    try:
        path = Path(os.path.realpath(place, strict=True))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        raise AdapterFault(f"{place.name} is a link that leads nowhere") from None
    if not path.is_relative_to(home):
        raise AdapterFault(f"{place.name} is a link that leaves its owner's folder")
    return path
