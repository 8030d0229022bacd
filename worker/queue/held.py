"""The partitions that a worker holds, and whose job is whose as the group rebalances. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.queue.kept_jobs import KeptJobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aril.worker.job import Entry, Partition
    from aril.worker.queue.assignment import PartitionState


class HeldPartitions:
    """The present assignment, and the running jobs of the one before until its place is known."""

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

    def redelivered(self, state: PartitionState, offset: int) -> bool:
        """Take back a job that has gone on across a rebalance; False if this record's has not."""
        entry = self._kept.take(state.source, offset)
        if entry is None:
            return False
        entry.kept = False
        entry.generation = state.membership.generation
        entry.settled_with.clear()  # they are delivered again, too
        state.add(entry)
        if entry.settled:
            state.finish(entry)
        return True

    def state_of(self, entry: Entry) -> PartitionState | None:
        """Return the assignment that a job belongs to, if that is the present one."""
        return None if entry.dropped or entry.kept else self._states.get(entry.source)

    def finish(self, entry: Entry) -> None:
        """Mark a settled job's offset as finished; that of a kept one when its record is back."""
        if (state := self.state_of(entry)) is not None:
            state.finish(entry)
