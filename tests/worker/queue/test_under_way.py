"""Which jobs an owner says to be under way, as a hint to the next one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aril.worker.queue.assignment import (
    UNDER_WAY_BYTES,
    Membership,
    PartitionState,
    base_of,
    done_list_of,
    under_way_of,
)
from aril.worker.queue.done_list import METADATA_BYTES
from aril.worker.queue.ledger import Checkpoint
from tests.support.entries import JOBS, entry_of

END = 10_000


def won(generation: int, committed: Checkpoint, *, end: int = END) -> PartitionState:
    """Return a partition that was won."""
    return PartitionState(JOBS, Membership(generation, generation, "m"), end, committed)


def owner(read: int) -> PartitionState:
    """Return a partition of which so many records were read, each a job that is fresh."""
    state = won(3, Checkpoint(0, ""), end=0)
    for offset in range(read):
        state.read(offset)
        state.add(entry_of(f"j{offset}", offset=offset))
    return state


def begin(state: PartitionState, *offsets: int) -> None:
    """Begin the jobs at these offsets."""
    for entry in state.entries:
        if entry.record.offset in offsets:
            state.begun(entry)


def finish(state: PartitionState, *offsets: int) -> None:
    """Finish the jobs at these offsets."""
    for entry in state.entries:
        if entry.record.offset in offsets:
            state.finish(entry)


def told(state: PartitionState, *, telling: bool = True) -> Checkpoint | None:
    """Commit."""
    checkpoint = state.to_commit(telling=telling)
    state.committed = checkpoint or state.committed
    return checkpoint


def heard(checkpoint: Checkpoint | None, read: int = 400) -> list[int]:
    """Return what the next owner takes to be under way."""
    assert checkpoint is not None
    heir = won(9, checkpoint)  # whatever generations were in between
    return [offset for offset in range(read) if heir.was_under_way(offset)]


@given(
    st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.integers(0, 10**9), st.booleans()
)
def test_the_next_owner_hears_what_was_begun_and_is_not_finished(
    begun: set[int], done: set[int], base: int, parting: bool
) -> None:
    """Beside it stand base and done list, and what is said on parting, as without it."""
    state = owner(61)
    state.base = base
    begin(state, *begun)
    finish(state, *done)
    state.revoked = parting
    checkpoint = told(state)
    if checkpoint is None:  # nothing at all to say
        assert (begun | done, base, parting) == (set(), 0, False)
        return
    assert heard(checkpoint) == sorted(begun - done)
    assert base_of(checkpoint.metadata) == base
    heir = won(4, checkpoint)
    beyond = range(checkpoint.position, 61)
    assert [offset for offset in beyond if not heir.read(offset)] == sorted(done & {*beyond})
    assert heir.fresh_from == (61 if parting else END)


def test_it_is_no_reason_to_commit_each_time() -> None:
    """It goes along with what is finished, and by itself only when it is asked for."""
    state = owner(10)
    begin(state, 3, 7)
    assert told(state, telling=False) is None
    finish(state, 1)
    assert heard(told(state, telling=False)) == [3, 7]
    begin(state, 4)
    assert told(state, telling=False) is None
    assert heard(told(state)) == [3, 4, 7]
    assert told(state) is None


def test_what_was_told_and_is_finished_is_below_the_position() -> None:
    """What was told of it before is no part of the next commit."""
    state = owner(10)
    begin(state, 0, 1, 5)
    told(state)
    finish(state, 0, 1)
    checkpoint = state.checkpoint()
    assert checkpoint is not None
    assert (checkpoint.position, heard(checkpoint)) == (2, [5])
    assert heard(told(state)) == [5]


def test_what_was_begun_before_is_told_on() -> None:
    """Its next owner may have to hand it on before it comes to it."""
    state = won(5, Checkpoint(0, ""))
    state.read(0)
    entry = entry_of("j0", offset=0)
    entry.begun_before = True
    state.add(entry)
    assert heard(told(state)) == [0]


def test_it_leaves_room_for_the_done_list_and_what_is_said_on_parting() -> None:
    """The list comes first; thousands of jobs under way are told in part."""
    state = owner(8_000)
    begin(state, *range(0, 8_000, 4))
    crowded = told(state)
    assert crowded is not None
    assert UNDER_WAY_BYTES // 2 < len(crowded.metadata) <= UNDER_WAY_BYTES + 10
    state.revoked = True
    parted = told(state)
    assert parted is not None
    assert won(4, parted).fresh_from == 8_000
    state.revoked = False
    finish(state, *range(1, 8_000, 2))
    full = told(state)
    assert full is not None
    assert len(full.metadata) <= METADATA_BYTES
    assert len(done_list_of(full)) > 1_000


def test_an_offset_that_another_cluster_has_translated_voids_it() -> None:
    """There the same offsets are other people's jobs."""
    state = owner(10)
    begin(state, 3)
    checkpoint = told(state)
    assert checkpoint is not None
    assert under_way_of(checkpoint) == (range(3, 4),)
    assert under_way_of(Checkpoint(checkpoint.position + 1, checkpoint.metadata)) == ()
