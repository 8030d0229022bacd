"""How far reply logs were read for jobs that wait to be taken over. Pure: no I/O, no clock.

A worker that inherits a long backlog takes its jobs over a few at a time, as they leave the
backlog. Were each few read back from their own start, the same log would be read once for every
few. So a pass folds what it reads for all jobs that still wait, too, and their own claims are read
back from where that pass ended. A log only grows: in one piece or in several it says the same.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aril.schemas import DecodeError, decode_reply
from aril.worker.takeover.rule import TakeOver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aril.worker.job import Entry
    from aril.worker.takeover.readback import LogRecord


@dataclass(slots=True, eq=False)
class Pending:
    """One job on its way into our hands, and what the log says of it so far."""

    entry: Entry
    worker: str
    begun: TakeOver | None = None  # made when it is needed: most of a long backlog only waits
    read_to: int | None = None  # every record of the job below was folded; None: none was
    claimed_at: int = -1
    prefix_lost: bool = False  # retention has deleted where the answer may have begun
    tries: int = 0

    @property
    def takeover(self) -> TakeOver:
        """The decisions; they begin under the epoch that the job has."""
        if self.begun is None:
            entry = self.entry
            self.begun = TakeOver(
                job=entry.job_id, worker=self.worker, generation=entry.generation, epoch=entry.epoch
            )
        return self.begun

    def begin(self, *, floor: int, log_start: int, last: int) -> None:
        """Set where its answer may begin.

        `floor` is where the log was when the job was produced, or before: no answer is older, so
        what a tenant says can only shorten the way. `last` is the end of the log as it was later.
        """
        told = self.entry.job.reply_from if self.entry.job is not None else None
        if told is None or told > last:
            told = floor
        self.read_to = max(told, floor)
        if told < log_start and floor <= log_start:
            self.prefix_lost, self.read_to = True, log_start

    def fold(self, record: LogRecord) -> None:
        """See one record of the job's key; what is no reply counts for no reader either."""
        if self.read_to is None or record.offset < self.read_to:
            return
        self.read_to = record.offset + 1
        try:
            reply = None if record.value is None else decode_reply(record.value)
        except DecodeError:
            return
        if reply is not None and reply.job == self.entry.job_id:
            self.takeover.read(reply)

    def forget(self) -> None:
        """Read it from its start again: what was read in part is worth nothing."""
        self.read_to, self.prefix_lost = None, False
        if self.begun is not None:
            self.begun.forget()


class ReadAhead:
    """The jobs of one reply log that wait for their turn."""

    def __init__(self) -> None:
        self._unread: dict[Entry, Pending] = {}
        self._followed: dict[Entry, Pending] = {}
        self._by_key: dict[bytes, list[Pending]] = defaultdict(list)  # of the followed
        self._read_to = 0  # of all the followed, where their own is not higher

    def __len__(self) -> int:
        return len(self._unread) + len(self._followed)

    def add(self, pending: Pending) -> None:
        """Let a job wait; it is read for once a pass has to start far back anyway."""
        self._unread[pending.entry] = pending

    def take(self, entry: Entry) -> Pending | None:
        """Remove a job, as it is claimed or dropped."""
        if entry in self._unread:
            return self._unread.pop(entry)
        pending = self._followed.pop(entry, None)
        if pending is not None:
            key = entry.job_id.encode()
            self._by_key[key].remove(pending)
            if not self._by_key[key]:
                del self._by_key[key]
            pending.read_to = max(pending.read_to or 0, self._read_to)
        return pending

    def unread(self, batch: Iterable[Pending]) -> list[Pending]:
        """Return the jobs whose start a pass over a claimed batch has to find.

        None if the batch needs none: then the pass is short, and the others can wait.
        """
        new = [each for each in batch if each.read_to is None]
        return [*new, *self._unread.values()] if new else []

    def first(self, batch: Iterable[Pending]) -> int:
        """Return where a pass has to start, once the starts are set."""
        starts = [each.read_to for each in (*batch, *self._unread.values())]
        if self._followed:
            starts.append(self._read_to)
        return min(start for start in starts if start is not None)

    def folding(self, batch: Sequence[Pending]) -> Callable[[LogRecord], None]:
        """Begin a pass: return what is to be called with each of its records, in order."""
        claimed = by_key(batch)
        joining = by_key(each for each in self._unread.values() if each.read_to is not None)
        followed = self._by_key

        def fold(record: LogRecord) -> None:
            key = record.key or b""
            for each in claimed.get(key, ()):
                if record.offset <= each.claimed_at:
                    each.fold(record)
            for each in (*joining.get(key, ()), *followed.get(key, ())):
                each.fold(record)

        return fold

    def passed(self, last: int) -> None:
        """Note the end of a pass that has handed out everything up to `last`."""
        self._read_to = last + 1
        for entry, pending in [*self._unread.items()]:
            if pending.read_to is not None:
                self._followed[entry] = self._unread.pop(entry)
                self._by_key[entry.job_id.encode()].append(pending)

    def failed(self) -> None:
        """Note that a pass broke off: nothing that was read so far is relied on."""
        self._unread |= self._followed
        self._followed.clear()
        self._by_key.clear()
        for pending in self._unread.values():
            pending.forget()


def by_key(waiting: Iterable[Pending]) -> Mapping[bytes, list[Pending]]:
    """Return jobs by the key of their records."""
    found: dict[bytes, list[Pending]] = defaultdict(list)
    for each in waiting:
        found[each.entry.job_id.encode()].append(each)
    return found
