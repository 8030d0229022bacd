"""Which jobs go on across a rebalance. Pure.

Every rebalance takes all partitions and gives most of them back a moment later. A running job goes
on meanwhile, under its epoch; its record is read again in the new assignment. That is safe under
one condition, `Membership.follows`: nobody can have owned the partition in between. Whatever does
not meet it is dropped, and is a take-over for whoever reads the record next (explored by
tests/worker/takeover/test_explorer.py, which also shows what a weaker condition loses).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from aril.worker.job import Entry, Partition
    from aril.worker.queue.assignment import PartitionState


class KeptJobs:
    """Running jobs between the assignment they were taken in and the one that has them again."""

    def __init__(self) -> None:
        self._parted: dict[Partition, PartitionState] = {}
        self._waiting: dict[Partition, dict[int, Entry]] = {}  # by offset, to be delivered again

    def __iter__(self) -> Iterator[Entry]:
        return (entry for waiting in self._waiting.values() for entry in waiting.values())

    def part(self, states: Iterable[PartitionState]) -> list[Entry]:
        """Take the running jobs of partitions that go; return those that have to stop."""
        stop: list[Entry] = []
        for state in states:
            # Those of the assignment before were never delivered again in this one.
            stop += self._waiting.pop(state.source, {}).values()
            kept = self._waiting[state.source] = {}
            self._parted[state.source] = state
            for entry in state.entries:
                if _goes_on(entry):
                    entry.kept = True
                    kept[entry.record.offset] = entry
                else:
                    stop.append(entry)
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

    def take(self, source: Partition, offset: int) -> Entry | None:
        """Return the job whose record is delivered again, if there is one."""
        return self._waiting.get(source, {}).pop(offset, None)


def _goes_on(entry: Entry) -> bool:
    """Whether a job may stay where it is: it writes under its epoch, or nothing at all.

    A suspect waits for an empty engine. Were it read again at each rebalance it would have to be
    claimed and put back each time, and with one every few seconds its turn would never come.
    """
    runs = entry.stage in {Stage.RUNNING, Stage.DISPLACED} and entry.owned
    return runs or (entry.stage is Stage.WAITING and entry.alone)
