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
        self._begun: dict[Entry, None] = {}  # by an earlier owner
        self._lonely: deque[Entry] = deque()  # suspects: each waits for an empty engine
        self._alone: Entry | None = None  # the one that has it
        self._hurried: dict[Partition, Entry] = {}  # before all others, one a partition

    def add(self, entry: Entry) -> None:
        """Let a job wait."""
        if entry.alone:
            self._lonely.append(entry)
        elif entry.begun_before:
            self._begun[entry] = None
        else:
            self._backlog.push(entry)

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
        if entry in self._begun:
            del self._begun[entry]
            return
        if self._hurried.get(entry.source) is entry:
            del self._hurried[entry.source]
        self._backlog.discard(entry)

    def hurry(self, entry: Entry) -> bool:
        """Serve a waiting job next, if no other of its partition is to be: it holds up the rest."""
        if entry.source in self._hurried or not self._backlog.take(entry):
            return False
        self._hurried[entry.source] = entry
        return True

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
        begun = next((each for each in self._begun if each.tenant not in skip), None)
        if begun is not None:
            del self._begun[begun]
            return begun
        if self._lonely:
            if idle:
                self._alone = self._lonely.popleft()
            return self._alone
        hurried = next(iter(self._hurried), None)
        return self._backlog.pop(skip) if hurried is None else self._hurried.pop(hurried)

    def over(self, entry: Entry) -> None:
        """Note that a job is through, in whatever way: others may start again."""
        if entry is self._alone:
            self._alone = None
