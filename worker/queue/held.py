"""The partitions that a worker holds, and whose job is whose as the group rebalances. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.queue.kept_jobs import KeptJobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aril.worker.job import Entry, Partition, Record
    from aril.worker.queue.assignment import PartitionState
    from aril.worker.queue.kept_jobs import Taken


class HeldPartitions:
    """The present assignment, and jobs of the ones before until they are read again."""

    def __init__(self) -> None:
        self._states: dict[Partition, PartitionState] = {}
        self._kept = KeptJobs()

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[PartitionState]:
        return iter(self._states.values())

    @property
    def jobs(self) -> list[Entry]:
        """Every job that is not finished, of this assignment or of the one before."""
        return [*(entry for state in self for entry in state.entries), *self._kept]

    def assign(self, states: Iterable[PartitionState]) -> list[Entry]:
        """Hold these partitions and no others; return the jobs that have to stop."""
        self._states = {state.source: state for state in states}
        return self._kept.meet(self._states)

    def revoke(self, states: Iterable[PartitionState]) -> list[Entry]:
        """Hold these no longer; return the jobs that have to stop, the others may come back."""
        states = list(states)
        for state in states:
            self._states.pop(state.source, None)
        return self._kept.part(states)

    def awaits(self, source: Partition) -> bool:
        """Tell whether jobs of a partition have gone on and were not read again yet."""
        return self._kept.awaits(source)

    def redelivered(self, state: PartitionState, record: Record) -> Taken:
        """Take back the job that has gone on across a rebalance, if this is its record.

        With it those are returned that have to stop, since theirs are gone.
        """
        taken = self._kept.take(record)
        if (entry := taken.entry) is not None:
            entry.kept = False
            entry.generation = state.membership.generation
            entry.settled_with.clear()  # they are delivered again, too
            state.add(entry)
            if entry.settled:
                state.finish(entry)
        return taken

    def state_of(self, entry: Entry) -> PartitionState | None:
        """Return the assignment that a job belongs to, if that is the present one."""
        return None if entry.dropped or entry.kept else self._states.get(entry.source)

    def elsewhere_until(self, entry: Entry) -> float | None:
        """Tell until when a worker that has left may still write a job's answer."""
        state = self.state_of(entry)
        return None if state is None else state.elsewhere_until(entry.record.offset)

    def begun(self, entry: Entry) -> None:
        """Note that a job is under way; of a kept one that is noted when its record is back."""
        if (state := self.state_of(entry)) is not None:
            state.begun(entry)

    def finish(self, entry: Entry) -> None:
        """Mark a settled job's offset as finished; that of a kept one when its record is back."""
        if (state := self.state_of(entry)) is not None:
            state.finish(entry)
