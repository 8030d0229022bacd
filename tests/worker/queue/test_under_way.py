"""Which jobs an owner says to be under way, as a hint to the next one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.queue.commit_text import BASE_END, base_of, done_list_of, under_way_of
from aril.worker.queue.done_list import HINT_BYTES, METADATA_BYTES, encode_from, runs_of
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
    assert HINT_BYTES // 2 < len(crowded.metadata) <= HINT_BYTES + 10
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


def inherited(*offsets: int, end: int = END, position: int = 0) -> PartitionState:
    """Return a partition whose last owner said that it has begun these, and finished nothing."""
    said = encode_from(position, runs_of(offsets))
    return won(5, Checkpoint(position, f"0{BASE_END}{said}{BASE_END}"), end=end)


def admit(state: PartitionState, *offsets: int) -> None:
    """Read records, each of a job."""
    for offset in offsets:
        if state.read(offset):
            entry = entry_of(f"j{offset}", offset=offset)
            entry.begun_before = state.was_under_way(offset)
            state.add(entry)


def test_what_was_not_read_yet_is_told_on() -> None:
    """A commit may be due before reading has come so far, or reading may rest."""
    state = inherited(2, 3, 50, 51)
    assert told(state) is None  # that has been said
    assert heard(state.checkpoint(7)) == [2, 3, 50, 51]
    admit(state, *range(10))
    finish(state, 0, 3)
    assert heard(told(state, telling=False)) == [2, 50, 51]
    admit(state, *range(10, 51))
    state.read(51)  # no job that waits
    state.finish_offset(51)
    finish(state, 2)
    assert heard(told(state)) == [50]


def test_what_touches_is_one_run() -> None:
    """What is begun here next to what was begun before: a list that is read back."""
    state = inherited(10, 11)
    admit(state, *range(10))
    begin(state, 9)
    assert heard(told(state)) == [9, 10, 11]


@given(st.sets(st.integers(0, 40)), st.integers(0, 40), st.sets(st.integers(0, 40)), st.data())
def test_however_far_was_read_nothing_that_is_under_way_is_lost(
    before: set[int], read: int, begun: set[int], data: st.DataObject
) -> None:
    """Over any number of owners, each with a worse fate than the last."""
    state = inherited(*sorted(before))
    admit(state, *range(read))
    begin(state, *begun)
    done = data.draw(st.sets(st.integers(0, read - 1))) if read else set()
    finish(state, *done)
    told(state, telling=data.draw(st.booleans()))
    told(state)
    assert heard(state.checkpoint()) == sorted((before | {n for n in begun if n < read}) - done)


def test_what_is_beyond_the_end_of_the_log_is_not_believed() -> None:
    """The log was cut since: these offsets will be other jobs'."""
    state = inherited(2, 8, 9, 10, end=9)
    assert [offset for offset in range(20) if state.was_under_way(offset)] == [2, 8]
    assert heard(told(state)) == [2, 8]


def test_a_log_that_was_set_back_voids_it() -> None:
    """What is read from its start are other jobs."""
    state = inherited(7, 8, position=5)
    admit(state, 0, 1)
    assert not state.was_under_way(7)
    assert heard(told(state)) == []
