"""The file of answers. It is the state: what it holds is not asked again.

Answers are appended as they are finished, one write each, so that a process that is killed leaves
at most one line torn, and that is cut off. Beside it lies `<output>.batch`, some fifty bytes that
are written before anything is asked: the name in the ids of this batch's jobs. It is locked while
the batch runs. Were the name made of the input instead, the same questions asked again next week,
into another file, would get this week's answers as long as the service remembers them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from aril.batches.digests import Digests
from aril.batches.lines import short_of
from aril.batches.records import OPENAI_BEGINS, OURS_BEGINS, digest_in, may_be_torn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

SUFFIX: Final = ".batch"
REWRITTEN: Final = ".new"
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,16}")
NAME_BYTES: Final = 4
MAX_SIDECAR_BYTES: Final = 200
MAX_ROUND: Final = 999


class BadOutput(ValueError):  # noqa: N818 - named for what happened
    """A file that answers cannot be put into; the message is one line."""


class OutputInUse(BadOutput):
    """Another run holds the file: it may be free in a moment."""


class Held(NamedTuple):
    """What a file of answers holds: lines that need not be asked, and how many are errors."""

    digests: Digests
    failed: int


class Output:
    """The file of answers, open and locked; a context manager."""

    def __init__(self, path: Path, *, name: str | None = None, mode: int = 0o666) -> None:
        """Prepare; `name` is the batch's, else it is drawn when the file is made.

        `mode` are the permissions that what is made gets, less the process's umask.
        """
        self._path = path
        self._mode = mode
        self._asked_name = name
        self._name = ""
        self._round = 0
        self._sidecar = -1
        self._file = -1
        self._failure: OSError | None = None

    @property
    def name(self) -> str:
        """What the ids of this batch's jobs begin with."""
        return f"{self._name}-{self._round}" if self._round else self._name

    def __enter__(self) -> Self:
        """Lock and open it. Raises `BadOutput`, `OutputInUse`, OSError."""
        try:
            self._sidecar = os.open(
                f"{self._path}{SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, self._mode
            )
            try:
                fcntl.flock(self._sidecar, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputInUse(f"{self._path}: another run writes it") from None
            self._name_it()
            self._file = self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Put what was written onto the disk, and unlock."""
        if self._file >= 0:
            with contextlib.suppress(OSError):  # a pipe or the like
                os.fsync(self._file)
            os.close(self._file)
        if self._sidecar >= 0:
            os.close(self._sidecar)
        self._file = self._sidecar = -1

    def append(self, record: bytes) -> None:
        """Write one line. Raises OSError; what is there of the line is then taken back.

        Nothing is appended after that: behind a line that stayed torn, it would make the file one
        that no run takes.
        """
        if self._failure is not None:
            raise OSError(self._failure.errno, self._failure.strerror) from self._failure
        written = 0
        try:
            while written < len(record):
                written += os.write(self._file, record[written:])
        except OSError as error:
            self._failure = error
            with contextlib.suppress(OSError):  # else the next run cuts it off
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise

    def held(self) -> Held:
        """Return what the file holds; a torn last line is cut off. Raises `BadOutput`.

        Only one of ours: any other file is left as it is, to the last byte.
        """
        digests, failed, end = Digests(), 0, 0
        with self._path.open("rb") as file:
            begins = file.read(len(OURS_BEGINS))
        if not any(each.startswith(begins[: len(each)]) for each in (OPENAI_BEGINS, OURS_BEGINS)):
            raise BadOutput(f"{self._path}: holds something else than answers; name another file")
        for at, record in self._records():
            if not record.endswith(b"\n") and may_be_torn(record):
                os.ftruncate(self._file, end)
                break
            found = digest_in(record) if record.endswith(b"\n") else None
            if found is None:
                raise BadOutput(f"{self._path}, line {at}: no answer of a batch; name another file")
            digest, is_error = found
            failed += is_error
            digests.add(short_of(digest))
            end += len(record)
        return Held(digests, failed)

    def drop_errors(self) -> int:
        """Take the errors out, so that their lines are asked again, under new ids; return how many.

        Killed in between, it leaves the file as it was.
        """
        failed = self.held().failed
        if not failed:
            return 0
        self.begin_round()
        new = Path(f"{self._path}{REWRITTEN}")
        with new.open("wb") as file:
            for _, record in self._records():
                found = digest_in(record)
                if found is not None and not found[1]:
                    file.write(record)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        os.close(self._file)
        self._file = self._open()
        return failed

    def begin_round(self) -> None:
        """Let what is asked from now on have other ids: what had the old ones is over."""
        self._write_name(self._name, self._round % MAX_ROUND + 1)

    def _records(self) -> Iterator[tuple[int, bytes]]:
        with self._path.open("rb") as file:
            yield from enumerate(file, start=1)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self._path, flags, self._mode)

    def _name_it(self) -> None:
        kept = self._kept_name() if self._path.exists() else None
        wanted = self._asked_name or (kept[0] if kept else secrets.token_hex(NAME_BYTES))
        if NAME.fullmatch(wanted) is None:
            raise BadOutput(f"{wanted!r} is no name: 1 to 16 letters, digits, - or _")
        if kept is not None and kept[0] == wanted:
            self._name, self._round = kept
        else:
            self._write_name(wanted, 0)

    def _kept_name(self) -> tuple[str, int] | None:
        try:
            told = json.loads(os.pread(self._sidecar, MAX_SIDECAR_BYTES, 0))
            name, round_ = told["name"], told["round"]
        except (ValueError, TypeError, KeyError):
            return None  # torn: nothing was asked yet under what it would have said
        fits = isinstance(name, str) and NAME.fullmatch(name) and type(round_) is int
        return (name, round_) if fits and 0 <= round_ <= MAX_ROUND else None

    def _write_name(self, name: str, round_: int) -> None:
        told = json.dumps({"name": name, "round": round_}).encode() + b"\n"
        os.ftruncate(self._sidecar, 0)
        os.pwrite(self._sidecar, told, 0)
        os.fsync(self._sidecar)
        self._name, self._round = name, round_
