"""Whose time is up, and whose deadline is remembered how long."""

from __future__ import annotations

import pytest

from aril.worker.intake.deadlines import STALE_DEADLINES, Deadlines
from aril.worker.stages import ENDING, TABLE, Event, Stage
from tests.support.entries import entry_of

BACK = [stage for stage in Stage if stage in ENDING and Event.BROKEN in TABLE[stage]]


def flood(deadlines: Deadlines) -> None:
    """Add so many jobs that are over that the next pruning lets go."""
    for number in range(STALE_DEADLINES + 10):
        done = entry_of(f"d{number}", offset=100 + number, stage=Stage.SETTLED)
        deadlines.add(done)


@pytest.mark.parametrize("stage", BACK, ids=lambda stage: stage.name)
def test_a_job_whose_end_breaks_still_has_its_deadline(stage: Stage) -> None:
    """Pruned while it was ending it would wait, or run, without an end once it was back."""
    deadlines, entry = Deadlines(), entry_of("a", offset=1, stage=stage)
    entry.deadline_ms = 1_000.0
    deadlines.add(entry)
    flood(deadlines)
    deadlines.prune(1)
    assert len(deadlines) == 1
    entry.life.happen(Event.BROKEN)
    found = deadlines.due(1_000.0)
    assert found == ([] if entry.ending else [entry])


@pytest.mark.parametrize("stage", [Stage.SETTLED, Stage.DROPPED], ids=lambda stage: stage.name)
def test_what_is_over_is_let_go(stage: Stage) -> None:
    """Else the heap would hold every job of a day."""
    deadlines, entry = Deadlines(), entry_of("a", offset=1, stage=stage)
    deadlines.add(entry)
    flood(deadlines)
    deadlines.prune(0)
    assert len(deadlines) == 0


def test_times_come_in_order_and_once() -> None:
    """At its very millisecond a job's time is up; asked again, it is not told again."""
    deadlines = Deadlines()
    for number, moment in enumerate((30.0, 10.0, 20.0)):
        entry = entry_of(f"j{number}", offset=number)
        entry.deadline_ms = moment
        deadlines.add(entry)
    assert [each.job_id for each in deadlines.due(20.0)] == ["j1", "j2"]
    assert deadlines.due(29.9) == []
    assert [each.job_id for each in deadlines.due(30.0)] == ["j0"]
