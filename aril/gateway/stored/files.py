"""One tenant's files: what it has uploaded, and what its batches have brought."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from aril.gateway.stored.disk import (
    PART,
    Part,
    drop_old_parts,
    make_folder,
    one_at_a_time,
    write_whole,
)
from aril.gateway.stored.ids import FILE, is_id, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONTENT: Final = ".jsonl"
ABOUT: Final = ".json"
KEEPING: Final = ".lock"
DAY_SECONDS: Final = 86_400

Purpose = Literal["batch", "batch_output"]


class Used(NamedTuple):
    """What there is of a tenant's files, unfinished uploads included."""

    files: int
    bytes: int


class StoredFile(BaseModel):
    """What is known of a file. Times are in seconds since 1970."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: str
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Purpose

    def told(self) -> dict[str, Any]:
        """Return it as OpenAI's file object."""
        return {"object": "file", **self.model_dump(), "status": "processed"}


class Files:
    """The folder of one tenant's files. It blocks: call it in a thread."""

    def __init__(self, folder: Path, *, days: float) -> None:
        """Prepare; a file is kept for `days` unless its owner says less."""
        self._folder = folder
        self._days = days

    @property
    def longest(self) -> int:
        """How long a file is kept at most, in seconds."""
        return int(self._days * DAY_SECONDS)

    def used(self) -> Used:
        """Count what there is."""
        sizes = []
        for each in self._entries():
            if each.suffix in {CONTENT, PART}:
                with contextlib.suppress(FileNotFoundError):  # removed, or renamed, meanwhile
                    sizes.append(each.stat().st_size)
        return Used(len(sizes), sum(sizes))

    def begin(self, file: str | None = None) -> tuple[str, Part]:
        """Return the id of a new file, or of the one that is to be `file`, and its content."""
        name = file or new_id(FILE)
        return name, Part(make_folder(self._folder) / f"{name}{CONTENT}")

    def keep(
        self,
        name: str,
        part: Part,
        *,
        filename: str,
        purpose: Purpose,
        seconds: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> StoredFile:
        """Let a written file be there, for `seconds` or as long as files are kept.

        Unless `check` raises. No other file is given its name meanwhile: who counts would miss it.
        """
        now = int(time.time())
        about = StoredFile(
            id=name,
            bytes=part.bytes,
            created_at=now,
            expires_at=now + min(seconds or self.longest, self.longest),
            filename=filename,
            purpose=purpose,
        )
        with one_at_a_time(self._folder.with_suffix(KEEPING)):
            check()
            part.keep()
        write_whole(self._path(name, ABOUT), about.model_dump_json().encode())
        return about

    def get(self, name: str) -> StoredFile | None:
        """Return what is known of a file; None if there is none of that id, or no more."""
        about = self._about(name) if is_id(name, FILE) else None
        return about if about is not None and about.expires_at > time.time() else None

    def newest_first(self) -> list[str]:
        """Return the ids of all files, expired ones not yet swept included."""
        names = (each.stem for each in self._entries() if each.suffix == ABOUT)
        return sorted((each for each in names if is_id(each, FILE)), reverse=True)

    def content(self, name: str) -> Path:
        """Return where the content of a file lies."""
        return self._path(name, CONTENT)

    def open(self, name: str) -> BinaryIO:
        """Return the content, open. Raises FileNotFoundError."""
        return self.content(name).open("rb")

    def delete(self, name: str) -> bool:
        """Remove a file; return whether it was there. A batch that works on it goes on."""
        there = self.get(name) is not None
        if there:
            self._remove(name)
        return there

    def sweep(self) -> None:
        """Remove what has expired, and what was never whole."""
        if not self._folder.is_dir():
            return
        drop_old_parts(self._folder)
        now = time.time()
        known = set(self.newest_first())
        for name in known:
            about = self._about(name)
            if about is not None and about.expires_at <= now:
                self._remove(name)
        for path in self._entries():
            # Its process died before it told of it, or between the halves of a removal.
            lost = path.suffix == CONTENT and path.stem not in known
            if lost and path.stat().st_mtime < now - DAY_SECONDS:
                path.unlink(missing_ok=True)

    def _about(self, name: str) -> StoredFile | None:
        try:
            return StoredFile.model_validate_json(self._path(name, ABOUT).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def _remove(self, name: str) -> None:
        for end in (ABOUT, CONTENT):
            self._path(name, end).unlink(missing_ok=True)

    def _path(self, name: str, end: str) -> Path:
        return self._folder / f"{name}{end}"

    def _entries(self) -> Iterator[Path]:
        try:
            yield from self._folder.iterdir()
        except FileNotFoundError:
            return
