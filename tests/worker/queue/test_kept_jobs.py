"""Which jobs go on across a rebalance: by hand, on the real states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.queue.kept_jobs import KeptJobs
from aril.worker.stages import Stage
from tests.support.entries import JOBS, entry_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aril.worker.job import Entry, Partition


def entry_at(offset: int, stage: Stage = Stage.RUNNING, *, owned: bool = True) -> Entry:
    """Return a job at that offset."""
    return entry_of(f"j{offset}", offset=offset, stage=stage, owned=owned)


def state_of(generation: int, *entries: Entry, member: str = "m") -> PartitionState:
    """Return an assignment with these jobs."""
    state = PartitionState(JOBS, Membership(generation, generation, member), 0)
    for entry in entries:
        state.add(entry)
    return state


def held(*states: PartitionState) -> Mapping[Partition, PartitionState]:
    """Return the new assignment as the worker has it."""
    return {state.source: state for state in states}


def test_only_what_runs_and_is_ours_is_kept() -> None:
    """A job that waits, or is being claimed, or has ended, is read again as any other."""
    runs, waits = entry_at(1), entry_at(2, Stage.WAITING)
    claimed, ended = entry_at(3, owned=False), entry_at(4, Stage.FINISHING)
    kept = KeptJobs()
    assert kept.part([state_of(3, runs, waits, claimed, ended)]) == [waits, claimed, ended]
    assert list(kept) == [runs]
    assert kept.meet(held(state_of(4))) == []
    assert kept.take(JOBS, 2) is None
    assert kept.take(JOBS, 1) is runs
    assert kept.take(JOBS, 1) is None


def test_a_suspect_keeps_its_place() -> None:
    """It waits for an empty engine and writes nothing meanwhile."""
    suspect, ended = (
        entry_at(1, Stage.WAITING, owned=False),
        entry_at(2, Stage.PREPARING, owned=False),
    )
    suspect.alone = ended.alone = True
    kept = KeptJobs()
    assert kept.part([state_of(3, suspect, ended)]) == [ended]
    assert kept.meet(held(state_of(4))) == []
    assert kept.take(JOBS, 1) is suspect


@pytest.mark.parametrize(
    "new",
    [
        [],
        [state_of(5)],
        [state_of(4, member="another")],
        [state_of(3)],
    ],
    ids=["gone", "missed-one", "other-member", "same-generation"],
)
def test_without_the_condition_they_stop(new: list[PartitionState]) -> None:
    """The partition may have been somebody else's: what ran here is a take-over now."""
    runs = entry_at(1)
    kept = KeptJobs()
    kept.part([state_of(3, runs)])
    assert kept.meet(held(*new)) == [runs]
    assert kept.take(JOBS, 1) is None


def test_a_job_that_is_not_read_again_before_the_next_rebalance_stops() -> None:
    """It is kept across one rebalance, not across two: its new assignment never had it."""
    runs = entry_at(1)
    kept = KeptJobs()
    kept.part([state_of(3, runs)])
    again = state_of(4)
    kept.meet(held(again))
    assert kept.part([again]) == [runs]
    assert list(kept) == []
