"""What an owner says of a partition as it parts with it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.queue.commit_text import base_of, done_list_of
from aril.worker.queue.done_list import MAX_OFFSET, METADATA_BYTES, runs_of
from aril.worker.queue.ledger import Checkpoint
from aril.worker.queue.parting import Parting, parting_of
from tests.support.entries import JOBS, entry_of

offsets = st.sets(st.integers(0, 300)).map(sorted)


def won(generation: int, committed: Checkpoint | None, *, end: int = 1_000) -> PartitionState:
    """Return a partition that was won."""
    return PartitionState(JOBS, Membership(generation, generation, "m"), end, committed)


def parted(*, finished: set[int], begun: set[int], read: int, generation: int = 3) -> Checkpoint:
    """Return what is committed by an owner to whom all was fresh, and who loses the partition."""
    state = won(generation, Checkpoint(0, ""), end=0)
    for offset in range(read):
        assert state.read(offset)
        entry = entry_of(f"j{offset}", offset=offset, owned=True)
        entry.touched = offset in begun
        state.add(entry)
        if offset in finished:
            state.finish(entry)
    state.revoked = True
    told = state.to_commit()
    assert told is not None
    return told


@given(offsets)
def test_offsets_become_runs_and_back(given: list[int]) -> None:
    """Each is in one run, and no two runs touch."""
    runs = runs_of(given)
    assert [offset for run in runs for offset in run] == given
    assert all(low.stop < high.start for low, high in itertools.pairwise(runs))


@given(
    position=st.integers(0, 100),
    generation=st.integers(0, 2**31 - 1),
    unread=st.integers(0, MAX_OFFSET),
    waiting=offsets,
    limit=st.integers(0, 200),
)
def test_what_is_read_was_said(
    position: int, generation: int, unread: int, waiting: list[int], limit: int
) -> None:
    """Within its bound; runs that do not fit are left out, the others stand as they were."""
    said = Parting(generation, unread, runs_of(each for each in waiting if each >= position))
    text = said.encode(position, limit)
    assert len(text) <= limit
    found = parting_of(position, text)
    if not text:
        assert found is None
        return
    assert found is not None
    assert found[:2] == said[:2]
    assert found.waiting == said.waiting[: len(found.waiting)]
    assert parting_of(position, said.encode(position, METADATA_BYTES)) == said
    assert parting_of(position + 1, text) is None


@pytest.mark.parametrize("text", ["", ",,,", "3,5", "3,5,0,", "x,5,00000000,", "3,5,00000000,,"])
def test_what_cannot_be_read_is_nothing(text: str) -> None:
    """Then every job is claimed."""
    assert parting_of(0, text) is None


@given(finished=st.sets(st.integers(0, 39)), begun=st.sets(st.integers(0, 39)))
def test_the_next_owner_takes_for_fresh_what_was_not_begun(
    finished: set[int], begun: set[int]
) -> None:
    """And nothing else; what was finished is not read again, as ever."""
    told = parted(finished=finished, begun=begun, read=40)
    heir = won(4, told)
    for offset in range(60):
        read = offset >= told.position and heir.read(offset)
        assert read == (offset not in finished)
        if read:
            assert heir.is_fresh(offset) == (offset not in begun)


@pytest.mark.parametrize("generation", [3, 5, 104])
def test_in_any_other_generation_it_says_nothing(generation: int) -> None:
    """Somebody may have had the partition meanwhile."""
    heir = won(generation, parted(finished=set(), begun={1}, read=4))
    assert not any(heir.is_fresh(offset) for offset in range(1_000))
    assert heir.is_fresh(1_000)


def test_a_longer_log_than_the_end_is_fresh_as_ever() -> None:
    """What is said ends nothing: jobs that came later are nobody's either."""
    heir = won(4, parted(finished=set(), begun={1}, read=4), end=2)
    assert [heir.is_fresh(offset) for offset in range(5)] == [True, False, True, True, True]


def test_only_the_last_commit_says_it() -> None:
    """Before that more may be begun at any moment; base and done list stand beside it."""
    state = won(4, Checkpoint(0, "7:"), end=0)
    for offset in range(6):
        state.read(offset)
    state.finish_offset(2)
    before = state.checkpoint()
    assert before is not None
    assert won(5, before).fresh_from == 1_000
    state.revoked = True
    told = state.checkpoint()
    assert told is not None
    assert won(5, told).fresh_from == 6
    for each in (before, told):
        assert base_of(each.metadata) == 7
        assert done_list_of(each) == (range(2, 3),)


def test_it_leaves_room_for_the_done_list() -> None:
    """That comes first: what it leaves out is computed again, this is only claimed."""
    read = 8_000
    told = parted(finished=set(range(1, read, 2)), begun=set(), read=read)
    assert len(told.metadata) <= METADATA_BYTES
    assert len(done_list_of(told)) > 1_000
