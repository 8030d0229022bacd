"""Which jobs go on across a rebalance: by hand, on the real states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aril.worker.job import Record
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


def record_at(offset: int, *, appended_ms: int = 0) -> Record:
    """Return what is read at an offset."""
    return Record(JOBS, offset, appended_ms, None, b"", ())


def took(kept: KeptJobs, *offsets: int) -> list[Entry | None]:
    """Read records again; nothing of what is kept may be lost by that."""
    found = [kept.take(record_at(offset)) for offset in offsets]
    assert not any(taken.lost for taken in found)
    return [taken.entry for taken in found]


def test_what_is_ours_is_kept_and_nothing_else() -> None:
    """Wherever it is, until its offset is finished; what is being claimed is read again."""
    stages = [stage for stage in Stage if stage is not Stage.DROPPED]
    ours = [entry_at(number, stage) for number, stage in enumerate(stages)]
    claimed, left = entry_at(90, Stage.CLAIMING, owned=False), entry_at(91, Stage.DROPPED)
    kept = KeptJobs()
    assert kept.part([state_of(3, *ours, claimed, left)]) == [claimed, left]
    assert list(kept) == ours
    assert kept.meet(held(state_of(4))) == []
    assert took(kept, *range(len(ours))) == ours
    assert not kept.awaits(JOBS)
    assert took(kept, 1, 90) == [None, None]


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
    assert took(kept, 1) == [suspect]


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
    """The partition may have been somebody else's: what was ours is a take-over now."""
    runs, waits = entry_at(1), entry_at(2, Stage.WAITING)
    kept = KeptJobs()
    kept.part([state_of(3, runs, waits)])
    assert kept.meet(held(*new)) == [runs, waits]
    assert not kept.awaits(JOBS)
    assert took(kept, 1) == [None]


def test_a_backlog_stays_over_more_rebalances_than_it_takes_to_read_it_again() -> None:
    """Each assignment follows the one before; what it has read again goes with the rest."""
    entries = [entry_at(offset) for offset in range(6)]
    kept = KeptJobs()
    kept.part([state_of(3, *entries)])
    for generation, read in ((4, range(2)), (5, range(4))):
        state = state_of(generation)
        assert kept.meet(held(state)) == []
        for entry in took(kept, *read):
            assert entry is not None
            state.add(entry)
        assert kept.awaits(JOBS)
        assert kept.part([state]) == []
    assert kept.meet(held(state_of(6))) == []
    assert took(kept, *range(6)) == entries
    assert list(kept) == []


def test_with_one_rebalance_missed_none_of_them_stays() -> None:
    """Also those that an assignment in between had not read again."""
    entries = [entry_at(offset) for offset in range(3)]
    kept = KeptJobs()
    kept.part([state_of(3, *entries)])
    again = state_of(4)
    kept.meet(held(again))
    again.add(took(kept, 0)[0] or entries[0])
    assert kept.part([again]) == []
    assert kept.meet(held(state_of(6))) == entries


def test_what_the_log_has_no_more_stops() -> None:
    """Deleted records are skipped; where a log was cut and has grown, another lies there."""
    entries = [entry_at(offset) for offset in (1, 2, 5, 6)]
    kept = KeptJobs()
    kept.part([state_of(3, *entries)])
    kept.meet(held(state_of(4)))
    assert kept.take(record_at(3)) == (None, entries[:2])
    assert kept.take(record_at(5, appended_ms=1)) == (None, [entries[2]])
    assert kept.take(record_at(6)) == (entries[3], [])
    assert not kept.awaits(JOBS)
