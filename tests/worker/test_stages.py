"""The table of a job's life: what it allows, and that nothing in it is a dead end."""

from __future__ import annotations

import pytest

from aril.worker.stages import ENDING, TABLE, Effect, Event, Life, Stage, UnexpectedEventError

# What these do may bring the job's next event in the same breath.
EAGER = {Effect.TAKE_OVER, Effect.WAIT, Effect.SETTLE}
# A job that begins again after a failed append is no further than before.
BACK = {Event.BROKEN, Event.SUSPECTED, Event.DISPLACED}


def reached_from(start: Stage, *, without: frozenset[Event] = frozenset()) -> set[Stage]:
    """Return every stage that a job may come to, by events other than those."""
    reached, new = {start}, [start]
    while new:
        for event, (stage, _) in TABLE[new.pop()].items():
            if event not in without and stage not in reached:
                reached.add(stage)
                new.append(stage)
    return reached


def test_every_stage_has_its_row_and_is_reached() -> None:
    """A stage that no job comes to, or that is not in the table, is none."""
    assert set(TABLE) == set(Stage)
    assert reached_from(Stage.ARRIVED) == set(Stage)


def test_every_event_and_every_effect_is_used() -> None:
    """The table speaks of all that may happen and of all that can be done."""
    rows = [(event, effects) for rows in TABLE.values() for event, (_, effects) in rows.items()]
    assert {event for event, _ in rows} == set(Event)
    assert {effect for _, effects in rows for effect in effects} == set(Effect)


@pytest.mark.parametrize(
    "stage", [stage for stage in Stage if stage != Stage.DROPPED], ids=lambda stage: stage.name
)
def test_every_job_can_end_here(stage: Stage) -> None:
    """From wherever it is a job can be settled, also if it is never dropped or broken off."""
    without = frozenset({Event.DROPPED, *BACK})
    assert Stage.SETTLED in reached_from(stage, without=without)


def test_a_job_can_be_dropped_at_every_stage_and_that_is_final() -> None:
    """A partition may go at any moment; whoever has it then ends the job."""
    assert all(rows[Event.DROPPED][0] is Stage.DROPPED for rows in TABLE.values())
    assert reached_from(Stage.DROPPED) == {Stage.DROPPED}


def test_nothing_leads_out_of_settled_but_the_loss_of_its_partition() -> None:
    """A job ends once."""
    assert set(TABLE[Stage.SETTLED]) == {Event.DROPPED}


def test_a_job_that_may_still_fail_is_not_ending() -> None:
    """Whoever ends a job looks at this; the stages are those with no row for FAILED."""
    assert {
        Stage.DOOMED,
        Stage.CONDEMNED,
        Stage.FINISHING,
        Stage.FAILING,
        Stage.UNTOLD,
        Stage.SETTLING,
        Stage.SETTLED,
        Stage.DROPPED,
    } == ENDING


def test_what_may_bring_the_next_event_comes_last() -> None:
    """Else the rest of the effects would be done after those of the next stage."""
    for rows in TABLE.values():
        for _, effects in rows.values():
            assert not EAGER & set(effects[:-1])


@pytest.mark.parametrize(
    "stage", [Stage.RUNNING, Stage.DISPLACED, Stage.FINISHING, Stage.CONDEMNED, Stage.FAILING]
)
def test_nothing_more_is_written_under_an_epoch_that_broke(stage: Stage) -> None:
    """An append whose fate is unknown: the next epoch begins before anything else is done."""
    after, effects = TABLE[stage][Event.BROKEN]
    assert after in {Stage.ARRIVED, Stage.DOOMED}
    assert effects[-2:] == (Effect.NEXT_EPOCH, Effect.LOOK_UP_LATER)


def test_only_what_is_ours_is_written() -> None:
    """A terminal is written for a job that runs, or that was taken over the moment before."""
    for stage, rows in TABLE.items():
        for event, (_, effects) in rows.items():
            if Effect.WRITE_ANSWER in effects:
                assert stage is Stage.RUNNING
            if Effect.WRITE_ERROR in effects:
                assert event in {Event.OURS, Event.SUSPECTED, Event.CONVICTED}


def test_an_event_without_a_row_changes_nothing_and_is_told() -> None:
    """Every pair that the table lacks, one by one."""
    for stage in Stage:
        for event in set(Event) - set(TABLE[stage]):
            life = Life(stage)
            with pytest.raises(UnexpectedEventError, match=f"{event.name} at {stage.name}"):
                life.happen(event)
            assert life.stage is stage


def test_a_claim_that_may_stand_without_an_end_is_released() -> None:
    """Only where its terminal is written, or no log was found, a drop is not told."""
    silent = {Stage.ARRIVED, Stage.DOOMED, Stage.SETTLING, Stage.SETTLED, Stage.DROPPED}
    for stage in set(Stage) - silent:
        assert TABLE[stage][Event.DROPPED][1][-1] is Effect.RELEASE, stage


def test_a_row_is_followed() -> None:
    """Stage and effects are those of the table."""
    assert Life().stage is Stage.ARRIVED
    life = Life(Stage.SETTLING)
    assert life.happen(Event.SETTLED) == (Effect.FINISH_OFFSET,)
    assert life.stage is Stage.SETTLED
