"""Whose turn it is.

What was taken over, streams that stand still since another worker had begun them, suspects alone,
what holds up a partition, fairness; in this order.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from aril.worker.batching.backlog import Backlog
    from aril.worker.job import Entry, Partition


class Turns:
    """The waiting jobs of a worker. While a suspect waits nobody else starts, so that it can."""

    def __init__(self, backlog: Backlog[Entry]) -> None:
        self._backlog = backlog
        self._first: deque[Entry] = deque()  # had their turn, and were taken over since
        self._begun: dict[Entry, None] = {}  # of the backlog: by an earlier owner
        self._to_fetch: Entry | None = None  # of these: it was passed over, as it is shelved
        self._lonely: deque[Entry] = deque()  # suspects: each waits for an empty engine
        self._alone: Entry | None = None  # the one that has it
        self._hurried: dict[Partition, Entry] = {}  # before all others, one a partition

    def add(self, entry: Entry) -> None:
        """Let a job wait."""
        if entry.alone:
            self._lonely.append(entry)
            return
        self._backlog.push(entry)  # what it holds counts there, whenever its turn comes
        if entry.begun_before:
            self._begun[entry] = None

    def add_first(self, entry: Entry) -> None:
        """Let a job be the next, in the order of the calls."""
        self._first.append(entry)

    @property
    def first(self) -> int:
        """How many jobs are next."""
        return len(self._first)

    @property
    def alone(self) -> Entry | None:
        """The suspect that has the engine to itself."""
        return self._alone

    @property
    def suspect(self) -> Entry | None:
        """The one that has the engine next, once it is empty."""
        return self._lonely[0] if self._lonely and self._alone is None else None

    def discard(self, entry: Entry) -> None:
        """Take a job out, if it waits here."""
        for queue in (self._first, self._lonely):
            if entry in queue:
                queue.remove(entry)
                return
        if self._hurried.get(entry.source) is entry:
            del self._hurried[entry.source]
        self._begun.pop(entry, None)
        self._backlog.discard(entry)

    def hurry(self, entry: Entry) -> bool:
        """Serve a waiting job next, if no other of its partition is to be: it holds up the rest."""
        if entry.source in self._hurried or not self._take(entry):
            return False
        self._hurried[entry.source] = entry
        return True

    def to_fetch(self) -> list[Entry]:
        """Return the job that would be next if it were whole: one after the other."""
        found, self._to_fetch = self._to_fetch, None
        return [] if found is None else [found]

    def next(self, *, idle: bool, skip: Collection[str] = ()) -> Entry | None:
        """Remove and return the job whose turn it is, or None; `idle`: nothing runs or is about to.

        Tenants in `skip` are passed over, but for what holds up a partition.

        A suspect has the engine to itself from then on, until `over`.
        """
        if self._alone is not None:
            if self._alone not in self._first:
                return None
            self._first.remove(self._alone)  # claims that took long may have come in before it
            return self._alone
        if self._first:
            return self._first.popleft()
        if (begun := self._next_begun(skip)) is not None:
            return begun
        if self._lonely:
            if idle:
                self._alone = self._lonely.popleft()
            return self._alone
        return self._next_other(skip)

    def over(self, entry: Entry) -> None:
        """Note that a job is through, in whatever way: others may start again."""
        if entry is self._alone:
            self._alone = None

    def _next_begun(self, skip: Collection[str]) -> Entry | None:
        for entry in self._begun:
            if entry.tenant in skip:
                continue
            if not entry.shelved:
                self._take(entry)
                return entry
            self._to_fetch = self._to_fetch or entry
        return None

    def _next_other(self, skip: Collection[str]) -> Entry | None:
        if (source := next(iter(self._hurried), None)) is not None:
            return self._hurried.pop(source)
        entry = self._backlog.pop(skip)
        if entry is not None:
            self._begun.pop(entry, None)
        return entry

    def _take(self, entry: Entry) -> bool:
        """Take a job out of the backlog before its turn there, at its tenant's cost."""
        self._begun.pop(entry, None)
        return self._backlog.take(entry)
