"""The brokers' time, learned from what is appended and read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aril.schemas import ErrorCode, ErrorRecord, Job
from aril.worker.engine.request import Output
from aril.worker.replies.broker_clock import BrokerClock
from tests.support.harness import Harness

MINUTES = 60_000.0
DELAYS = st.floats(0, 5_000)


@given(
    ahead=st.floats(-1e7, 1e7),
    appends=st.lists(st.tuples(DELAYS, DELAYS), min_size=1, max_size=20),
)
def test_no_estimate_is_further_off_than_an_append_took(
    ahead: float, appends: list[tuple[float, float]]
) -> None:
    """Whatever the difference and however slow a broker: the quickest append bounds the error."""
    clock, now = BrokerClock(), 1e9
    for there, back in appends:
        clock.appended(now + there + ahead, sent_ms=now, heard_ms=now + there + back)
        assert abs(clock.now_ms(now) - now - ahead) <= there + back + 1e-3
        now += 10_000
    assert abs(clock.skew_seconds * 1_000 + ahead) <= min(map(sum, appends)) + 1e-3


def test_a_clock_that_is_right_is_left_alone() -> None:
    """However long appends take."""
    clock = BrokerClock()
    for sent, took in ((0.0, 5_000.0), (9_000.0, 2.0), (10_000.0, 30_000.0)):
        clock.appended(sent + took / 2, sent_ms=sent, heard_ms=sent + took)
        assert clock.skew_seconds == 0


def test_before_the_first_append_no_job_is_late_by_our_clock_alone() -> None:
    """Only what was read is known: it is at least as late as the newest record says."""
    clock = BrokerClock()
    assert clock.now_ms(1_000.0) == 1_000.0
    clock.saw(400.0, 1_000.0)
    assert clock.now_ms(1_000.0) == 400.0
    clock.saw(100.0, 1_000.0)
    assert clock.now_ms(1_500.0) == 900.0


async def test_deadlines_are_kept_by_the_brokers_time() -> None:
    """A clock that is ten minutes fast ends no job of a minute, and those that are late."""
    async with Harness() as harness:
        harness.writer.clock.appended(0, sent_ms=10 * MINUTES, heard_ms=10 * MINUTES)
        for name, age in (("good", 10 * MINUTES), ("late", 12 * MINUTES)):
            harness.send(
                Job(id=name, tenant="acme", prompt=name, deadline_ms=int(MINUTES)), age_ms=age
            )
        await harness.settle()
        harness.lifecycle.tick()
        await harness.settle()
        assert harness.running == ["good"]
        (told,) = harness.replies("acme", "late")
        assert isinstance(told, ErrorRecord)
        assert told.code is ErrorCode.DEADLINE_EXCEEDED
        harness.step(Output(harness.key_of("good"), (1,), "a", finish="stop"))
        await harness.settle()
        skew = harness.metrics.registry.get_sample_value("aril_clock_skew_seconds")
        assert skew == 600
