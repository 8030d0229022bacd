"""The ledger: only a contiguous finished prefix is ever committed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.ledger import Ledger


def test_the_position_stops_at_the_first_open_offset() -> None:
    """Finishing out of order commits nothing until the gap closes."""
    ledger = Ledger(7)
    for offset in (7, 8, 9):
        assert ledger.read(offset)
    ledger.finish(8)
    ledger.finish(9)
    assert ledger.position == 7
    ledger.finish(7)
    assert ledger.position == 10
    assert ledger.open == 0


def test_a_redelivered_offset_is_not_read_twice() -> None:
    """What was read in this assignment is not work a second time."""
    ledger = Ledger(0)
    assert ledger.read(3)
    assert not ledger.read(3)
    assert not ledger.read(2)
    assert ledger.next_offset == 4


def test_an_offset_is_finished_once() -> None:
    """A second finish is a programmer's error, not a silent no-op."""
    ledger = Ledger(0)
    ledger.read(0)
    ledger.finish(0)
    with pytest.raises(ValueError, match="offset 0 is not open"):
        ledger.finish(0)


@given(st.sets(st.integers(0, 60), max_size=30), st.randoms(use_true_random=False), st.integers(0))
def test_committed_means_finished(offsets: set[int], random: object, start: int) -> None:
    """At every moment all read offsets below the position are finished, and it never falls."""
    ledger = Ledger(start)
    to_read = sorted(start + offset for offset in offsets)
    order = list(to_read)
    random.shuffle(order)  # type: ignore[attr-defined] # hypothesis' Random
    open_now: set[int] = set()
    position = ledger.position
    for offset in to_read:
        assert ledger.read(offset)
        open_now.add(offset)
    for offset in order:
        ledger.finish(offset)
        open_now.discard(offset)
        assert ledger.position >= position
        position = ledger.position
        assert all(each >= position for each in open_now)
        assert not open_now or position == min(open_now)
    assert ledger.position == ledger.next_offset
