"""Phases follow one another without a gap, whatever the clock does; ids follow from the record."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aril.worker.observe.traces.identity import Owner, Place, span_id, trace_id
from aril.worker.observe.traces.phases import (
    DECODE,
    PREFILL,
    Interval,
    Phase,
    Phases,
    Piece,
    pieces,
)

PLACE = Place("jobs", 3, 17, 1_700_000_000_000)
TIMES = st.integers(0, 100)


@given(TIMES, st.lists(st.tuples(st.sampled_from([*Phase, None]), TIMES)))
def test_phases_follow_one_another(begun: int, moves: list[tuple[Phase | None, int]]) -> None:
    """No time is negative, none is counted twice; a phase that is entered again goes on."""
    phases, over = Phases(begun), []
    for phase, now in moves:
        if (interval := phases.enter(phase, now)) is not None:
            over.append(interval)
    assert all(begun <= each.start_ns <= each.end_ns for each in over)
    assert all(one.end_ns <= other.start_ns for one, other in pairwise(over))
    entered: list[Phase | None] = [Phase.QUEUE]
    for phase, _ in moves:
        if phase is not entered[-1]:
            entered.append(phase)
    assert [each.phase for each in over] == [each for each in entered[:-1] if each is not None]


@given(TIMES, TIMES, st.integers(0, 250))
def test_a_run_is_split_at_its_first_token(start: int, length: int, first: int) -> None:
    """Two pieces that meet there, or one: nothing of the run is left out."""
    run = Interval(Phase.RUN, start, start + length)
    found = list(pieces(run, first))
    assert (found[0].start_ns, found[-1].end_ns) == (start, start + length)
    if len(found) > 1:
        assert [each.name for each in found] == [PREFILL, DECODE]
        assert found[0].end_ns == found[1].start_ns == min(first, start + length)


def test_a_run_without_a_first_token_of_its_own() -> None:
    """None came: it was a prefill. One had come in an earlier run: it goes on with decoding."""
    run = Interval(Phase.RUN, 10, 20)
    assert list(pieces(run, 0)) == [Piece(PREFILL, 10, 20)]
    assert list(pieces(run, 5)) == [Piece(DECODE, 10, 20)]


def test_ids_are_the_same_for_every_owner_and_no_others() -> None:
    """A trace goes by record and question, a span by its owner as well; both fit their fields."""
    trace = trace_id(PLACE, b"digest")
    assert trace == trace_id(Place(*PLACE), b"digest")
    others = {trace_id(PLACE._replace(offset=18), b"digest"), trace_id(PLACE, b"other")}
    assert len({trace, *others}) == 3
    assert 0 < trace < 1 << 128
    owners = [Owner("w1", 3), Owner("w1", 4), Owner("w2", 3)]
    spans = {span_id(PLACE, owner) for owner in owners}
    assert len(spans) == 3
    assert all(0 < span < 1 << 64 for span in spans)
