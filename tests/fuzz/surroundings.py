"""What has to be there while cases run: a folder in memory, quiet logs."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

SHM: Final = Path("/dev/shm")  # noqa: S108 - in memory, where there is such a folder


@contextmanager
def memory_folder() -> Iterator[Path]:
    """Make a folder that is gone afterwards, in memory where that can be."""
    place = SHM if SHM.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="aril-fuzz-", dir=place) as made:
        yield Path(made)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what our code logs."""
    with structlog.testing.capture_logs() as logs:
        del logs[:]
        yield
