"""What a worker that leaves says of the jobs it still runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.queue.commit_text import base_of, under_way_of
from aril.worker.queue.done_list import METADATA_BYTES, runs_of
from aril.worker.queue.going_on import MOST_MS, NOTHING, GoingOn, going_on_of
from aril.worker.queue.ledger import Checkpoint
from tests.support.entries import JOBS, entry_of


def won(generation: int, committed: Checkpoint, *, now: float = 0.0) -> PartitionState:
    """Return a partition that was won."""
    membership = Membership(generation, generation, "m")
    return PartitionState(JOBS, membership, 100, committed, now=now)


def leaving(*offsets: int, seconds: float = 30.0) -> Checkpoint:
    """Return the last commit of a worker that still runs these jobs of ten."""
    state = won(3, Checkpoint(0, ""))
    for offset in range(10):
        state.read(offset)
        state.add(entry := entry_of(f"j{offset}", offset=offset))
        if offset in offsets:
            state.begun(entry)
    state.goes_on(offsets, seconds)
    state.part(3)
    told = state.to_commit()
    assert told is not None
    return told


@given(
    st.integers(0, 50),
    st.sets(st.integers(0, 300)),
    st.integers(0, 2 * MOST_MS),
    st.integers(0, 300),
)
def test_what_is_read_was_said(position: int, offsets: set[int], ms: int, limit: int) -> None:
    """Of what is not finished, as far as it fits; elsewhere it says nothing."""
    said = GoingOn(ms, runs_of(sorted(offsets)))
    text = said.encode(position, limit)
    assert len(text) <= limit
    found = going_on_of(position, text)
    heard = [offset for run in found.runs for offset in run]
    beyond = sorted(offset for offset in offsets if offset >= position)
    assert heard == beyond[: len(heard)]
    if limit == 300:
        assert heard == beyond[:1] or heard
    assert found.ms == (min(ms, MOST_MS) if text else 0)
    assert not going_on_of(position + 1, text).runs


@pytest.mark.parametrize(
    "text", ["", "drains-", "drains-5", "drains-5-", "drains--5-AA", "drains-9999999-", "4,5,6,7"]
)
def test_whatever_else_stands_there_says_nothing(text: str) -> None:
    """Of any job."""
    assert going_on_of(0, text).runs == NOTHING.runs


def test_the_next_owner_knows_until_when() -> None:
    """Beside it stands what was under way, and what nobody has begun."""
    told = leaving(2, 5)
    heir = won(4, told, now=1_000.0)
    assert [heir.elsewhere_until(offset) for offset in (2, 5)] == [1_030.0] * 2
    assert [heir.elsewhere_until(offset) for offset in (0, 3, 11)] == [None] * 3
    assert [run.start for run in under_way_of(told)] == [2, 5]
    assert base_of(told.metadata) == 0
    assert heir.fresh_from == 100


def test_what_is_left_of_the_time_is_passed_on() -> None:
    """To whoever has the partition next, by parting or after a rebalance; no longer."""
    heir = won(4, leaving(2, 5), now=1_000.0)
    for offset in range(10):
        heir.read(offset)
    heir.part(4, now=1_010.0)
    told = heir.to_commit()
    assert told is not None
    assert won(5, told, now=2_000.0).elsewhere_until(5) == 2_020.0
    late = won(4, leaving(2, 5), now=1_000.0)
    late.part(4, now=1_030.0)
    told = late.to_commit()
    assert told is not None
    assert won(5, told).elsewhere_until(5) is None


def test_a_common_commit_does_not_say_it() -> None:
    """It stays as it is while jobs end; it would be another one each time."""
    heir = won(4, leaving(2, 5), now=1_000.0)
    for offset in range(10):
        heir.read(offset)
    heir.finish_offset(0)
    told = heir.to_commit()
    assert told is not None
    assert won(5, told).elsewhere_until(5) is None


def test_it_fits_beside_all_else() -> None:
    """What is said is cut, never the done list."""
    state = won(3, Checkpoint(0, ""))
    for offset in range(8_000):
        state.read(offset)
        state.add(entry_of(f"j{offset}", offset=offset))
    for entry in [*state.entries][1::2]:
        state.finish(entry)
    for entry in state.entries:
        state.begun(entry)
    state.goes_on((entry.record.offset for entry in state.entries), 30.0)
    state.part(3)
    told = state.to_commit()
    assert told is not None
    assert len(told.metadata) <= METADATA_BYTES


def test_a_log_that_was_set_back_voids_it() -> None:
    """Its offsets are other people's jobs: nobody waits with these."""
    committed = Checkpoint(20, "0:" + GoingOn(30_000, (range(25, 26),)).encode(20, 300) + ":")
    kept, set_back = won(4, committed), won(4, committed)
    assert kept.read(20)
    assert kept.elsewhere_until(25) == 30.0
    assert set_back.read(0)
    assert set_back.elsewhere_until(25) is None
