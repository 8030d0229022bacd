"""One tenant's batches, each a folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from aril.gateway.stored.disk import (
    FILE_MODE,
    Lock,
    drop_old_parts,
    make_folder,
    sync_folder,
    write_new,
    write_whole,
)
from aril.gateway.stored.ids import BATCH, is_id
from aril.gateway.stored.records import Batch

if TYPE_CHECKING:
    from pathlib import Path

RECORD: Final = "batch.json"
INPUT: Final = "input.jsonl"
ANSWERS: Final = "answers.jsonl"
CANCEL: Final = "cancel"
LOCK: Final = "lock"
SLOTS: Final = "slots"
KEYS: Final = "keys"
LOST_SECONDS: Final = 3_600.0
"""What has no record after so long was being made by a process that died."""


class Batches:
    """The folder of one tenant. It blocks: call it in a thread."""

    def __init__(self, tenant: Path) -> None:
        self._folder = tenant / "batches"
        self._slots = tenant / SLOTS
        self._keys = tenant / KEYS

    def claim(self, key: str, name: str) -> str:
        """Return the id of the batch that a key stands for: `name`, unless it had one before."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        path = make_folder(self._keys) / digest
        return name if write_new(path, name.encode()) else path.read_text()

    def create(self, batch: Batch, content: Path) -> None:
        """Let a batch be there; its input is linked to.

        Of two who make one batch the second changes nothing. Raises FileNotFoundError without an
        input, FileExistsError if it was begun with another one.
        """
        folder = make_folder(self.folder(batch.id))
        try:
            os.link(content, folder / INPUT)
        except FileExistsError:
            # Who was to make it before has died, or is just making it.
            if not content.samefile(folder / INPUT):
                raise
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
        write_new(folder / RECORD, _bytes(batch))

    def get(self, name: str) -> Batch | None:
        """Return a batch; None if there is none of that id."""
        if not is_id(name, BATCH):
            return None
        try:
            return Batch.model_validate_json((self.folder(name) / RECORD).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def newest_first(self) -> list[str]:
        """Return the ids of all batches, those that are just being made included."""
        try:
            names = [each.name for each in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted((each for each in names if is_id(each, BATCH)), reverse=True)

    def save(self, batch: Batch, *, durable: bool = True) -> None:
        """Write how it stands; only who holds its lock may."""
        write_whole(self.folder(batch.id) / RECORD, _bytes(batch), durable=durable)

    def cancel(self, name: str) -> None:
        """Want a batch ended."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.folder(name) / CANCEL, flags, FILE_MODE))
            sync_folder(self.folder(name))

    def cancel_at(self, name: str) -> int | None:
        """Return since when somebody wants it ended, in seconds since 1970; None: nobody."""
        try:
            return int((self.folder(name) / CANCEL).stat().st_mtime)
        except FileNotFoundError:
            return None

    def lock(self, name: str) -> Lock | None:
        """Return the right to work on a batch; None if another process has it."""
        return Lock.take(self.folder(name) / LOCK)

    def slot(self, most: int) -> Lock | None:
        """Return the right to work on one more of this tenant's; None if `most` are worked on."""
        make_folder(self._slots)
        for number in range(most):
            if (lock := Lock.take(self._slots / str(number))) is not None:
                return lock
        return None

    def tidy(self, name: str) -> None:
        """Remove what only a batch under way needs: prompts and answers have files of their own."""
        for path in self.folder(name).glob(f"{ANSWERS}*"):
            path.unlink(missing_ok=True)
        (self.folder(name) / INPUT).unlink(missing_ok=True)

    def sweep(self, oldest: float) -> None:
        """Remove batches that ended before `oldest`, older keys, and what never became a batch."""
        for name in self.newest_first():
            folder, batch = self.folder(name), self.get(name)
            if batch is not None:
                stale = batch.is_over and (batch.ended_at or 0) < oldest
            else:
                stale = not (folder / RECORD).exists() and _age(folder) > LOST_SECONDS
            if stale:
                (folder / RECORD).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
        if self._keys.is_dir():
            drop_old_parts(self._keys)
            for path in self._keys.iterdir():
                if path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)

    def folder(self, name: str) -> Path:
        """Return where a batch lies."""
        return self._folder / name


def _bytes(batch: Batch) -> bytes:
    return batch.model_dump_json().encode()


def _age(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
