"""Which jobs go on across a rebalance. Pure.

Every rebalance takes all partitions and gives most of them back a moment later. What is ours to
write stays where it is meanwhile, in the backlog as in the engine, under its epoch; its record is
read again in the new assignment. That is safe under one condition, `Membership.follows`: nobody can
have owned the partition in between. Whatever does not meet it is dropped, and is a take-over for
whoever reads the record next (explored by tests/worker/takeover/test_explorer.py, which also shows
what a weaker condition loses).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aril.worker.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from aril.worker.job import Entry, Partition, Record
    from aril.worker.queue.assignment import PartitionState


class Taken(NamedTuple):
    """What a record is that is read: a job that was kept, if any; and those that never come."""

    entry: Entry | None
    lost: Sequence[Entry] = ()


class KeptJobs:
    """Jobs between the assignment they were taken in and the one that has them again.

    It may take several rebalances until a long backlog has been read again: they stay kept.
    """

    def __init__(self) -> None:
        self._parted: dict[Partition, PartitionState] = {}
        # By offset, lowest first, to be delivered again.
        self._waiting: dict[Partition, dict[int, Entry]] = {}

    def __iter__(self) -> Iterator[Entry]:
        return (entry for waiting in self._waiting.values() for entry in waiting.values())

    def awaits(self, source: Partition) -> bool:
        """Tell whether jobs of a partition were not delivered again yet."""
        return source in self._waiting

    def part(self, states: Iterable[PartitionState]) -> list[Entry]:
        """Take the jobs of partitions that go and that are ours; return those that have to stop."""
        stop: list[Entry] = []
        for state in states:
            kept = {}
            for entry in state.entries:
                if _goes_on(entry):
                    entry.kept = True
                    kept[entry.record.offset] = entry
                else:
                    stop.append(entry)
            kept |= self._waiting.pop(state.source, {})  # of before: not delivered again so far
            if kept:
                self._waiting[state.source] = dict(sorted(kept.items()))
            self._parted[state.source] = state
        return stop

    def meet(self, states: Mapping[Partition, PartitionState]) -> list[Entry]:
        """Learn the new assignment; return the jobs that have to stop after all."""
        parted, self._parted = self._parted, {}
        stop: list[Entry] = []
        for source, old in parted.items():
            new = states.get(source)
            if new is None or not new.membership.follows(old.membership):
                stop += self._waiting.pop(source, {}).values()
        return stop

    def take(self, record: Record) -> Taken:
        """Tell what a record is that was read in the new assignment.

        Records come in order, so what is kept of before it was deleted; and a log that was cut and
        has grown again has another record at a job's offset.
        """
        waiting = self._waiting.get(record.source)
        if waiting is None:
            return Taken(None)
        lost: list[Entry] = []
        entry = None
        while waiting and (first := next(iter(waiting))) <= record.offset:
            found = waiting.pop(first)
            if first == record.offset and found.record.timestamp_ms == record.timestamp_ms:
                entry = found
            else:
                lost.append(found)
        if not waiting:
            del self._waiting[record.source]
        return Taken(entry, lost)


def _goes_on(entry: Entry) -> bool:
    """Whether a job may stay where it is: it writes under its epoch, or nothing at all.

    A suspect waits for an empty engine. Were it read again at each rebalance it would have to be
    claimed and put back each time, and with one every few seconds its turn would never come.
    """
    if entry.dropped:  # we are leaving
        return False
    return entry.owned or (entry.stage is Stage.WAITING and entry.alone)
