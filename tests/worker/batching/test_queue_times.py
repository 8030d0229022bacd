"""Jobs whose turns would come too late are told so at once, and no others."""

from __future__ import annotations

import time

from aril.schemas import ErrorCode, ErrorEvent, Job
from aril.worker.batching.queue_times import ENOUGH, QueueTimes
from tests.support.harness import Harness


def paced(seconds: float, turns: int = 20) -> QueueTimes:
    """Return the times of a tenant whose jobs have turns at that pace."""
    times = QueueTimes()
    for number in range(turns):
        times.turn("acme", number * seconds, more=True)
    return times


def test_what_is_expected_is_the_pace_of_late() -> None:
    """So many jobs, so much time; it follows a pace that changes."""
    times = paced(2.0)
    assert times.until("acme", 10) == 20.0
    for number in range(60):
        times.turn("acme", 40 + number, more=True)
    told = times.until("acme", 10)
    assert told is not None
    assert 9.9 < told < 11


def test_nothing_is_told_of_who_has_had_few_turns() -> None:
    """Nor of who had none while others waited."""
    assert paced(1.0, ENOUGH).until("acme", 10) is None
    assert paced(1.0, ENOUGH + 1).until("acme", 10) == 10
    assert QueueTimes().until("acme", 10) is None


def test_a_queue_that_was_empty_says_nothing_of_the_pace() -> None:
    """The time until the next job came is not one that anybody waited."""
    times = paced(1.0)
    times.turn("acme", 21, more=False)
    times.turn("acme", 1_000, more=True)
    assert times.until("acme", 10) is None


async def test_a_job_that_cannot_be_in_time_is_refused_at_once() -> None:
    """Behind forty jobs at one a minute five seconds are too few, and an hour is not."""
    async with Harness(max_rows=1) as harness:
        for number in range(40):
            harness.send(Job(id=f"a{number}", tenant="acme", prompt=f"a{number}"))
        await harness.settle()
        for number in range(20):
            harness.dispatcher._times.turn("acme", time.monotonic() + number * 60, more=True)
        harness.send(Job(id="late", tenant="acme", prompt="late", deadline_ms=5_000))
        harness.send(Job(id="patient", tenant="acme", prompt="patient", deadline_ms=3_600_000))
        harness.send(Job(id="urgent", tenant="acme", prompt="u", deadline_ms=5_000, priority=9))
        harness.send(Job(id="other", tenant="zeta", prompt="other", deadline_ms=5_000))
        await harness.settle()
        error = harness.visible("acme", "late").terminal
        assert isinstance(error, ErrorEvent)
        assert error.code is ErrorCode.DEADLINE_EXCEEDED
        assert error.limit == 5_000
        assert isinstance(error.given, int)
        assert 30 * 60_000 < error.given < 50 * 60_000
        for tenant, name in (("acme", "patient"), ("acme", "urgent"), ("zeta", "other")):
            assert harness.visible(tenant, name).terminal is None


async def test_jobs_that_another_worker_may_have_begun_are_not_refused() -> None:
    """Their answers may stand there already."""
    async with Harness(max_rows=1) as harness:
        harness.assign(generation=4, end_offset=100)
        for number in range(20):
            harness.send(Job(id=f"a{number}", tenant="acme", prompt=f"a{number}"))
        await harness.settle()
        for number in range(20):
            harness.dispatcher._times.turn("acme", time.monotonic() + number * 60, more=True)
        harness.send(Job(id="old", tenant="acme", prompt="old", deadline_ms=60_000))
        await harness.settle()
        assert harness.visible("acme", "old").terminal is None


def test_rows_that_fall_free_together_are_no_slow_turns() -> None:
    """256 turns come at once, every half minute: the first of the next ones is no pace."""
    times = QueueTimes()
    for batch in range(4):
        for _ in range(256):
            times.turn("a", 30.0 * batch, more=True)
    times.turn("a", 120.0, more=True)
    waits = times.until("a", 256)
    assert waits is not None
    assert 15 < waits < 60


def test_a_pause_is_soon_forgotten() -> None:
    """A log that did not answer for ten minutes says little of the turns that come now."""
    times = QueueTimes()
    for turn in range(200):
        times.turn("a", float(turn), more=True)
    times.turn("a", 800.0, more=True)
    waits = times.until("a", 3)
    assert waits is not None
    assert waits < 30
