"""When a worker asks for a rebalance: rarely, for a reason that lasts, and less often in vain."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.placement.load_report import Notice
from aril.worker.placement.plan import CLOSE_TO, OPEN_ABOVE
from aril.worker.placement.trigger import (
    FELL_TO,
    HOLD_SECONDS,
    MAX_PATIENCE,
    STALE,
    Trigger,
    Why,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS = 16
SECONDS = 60.0


def notice(
    *loads: float, others: float = 0.0, opened: int = 1, standby: int = 0, **more: bool
) -> Notice:
    """Return what the leader tells a worker with these loads, beside others of that sum."""
    return Notice(opened, standby, sum(loads) + others, opened * ROWS, loads=loads, **more)


def made(told: Notice | None, *, at: float = 0.0) -> Trigger:
    """Return a trigger after an assignment."""
    trigger = Trigger(rows=ROWS, seconds=SECONDS)
    trigger.told(told, at, changed=True)
    return trigger


def asks(
    trigger: Trigger, loads: Callable[[int], list[float]], seconds: range
) -> Iterator[tuple[int, Why]]:
    """Ask each second; yield when and why it wants a rebalance."""
    for second in seconds:
        if (why := trigger.ask(loads(second), second)) is not None:
            yield second, why


def test_too_full_beside_a_standby_opens_after_a_moment() -> None:
    """A load that lasts; a burst that is over before HOLD_SECONDS asks for nothing."""
    full, calm = [8.0, 8.0], [4.0, 4.0]
    trigger = made(notice(4, 4, standby=1))
    burst = int(HOLD_SECONDS) - 1
    assert list(asks(trigger, lambda now: full if now < burst else calm, range(60))) == []
    first = 60 + int(HOLD_SECONDS)
    assert next(asks(trigger, lambda _: full, range(60, 120))) == (first, Why.OPEN)


@pytest.mark.parametrize(
    ("loads", "told"),
    [
        ([OPEN_ABOVE * ROWS / 2] * 2, notice(8, 4, standby=1)),  # not above the limit
        ([20.0], notice(8, standby=1)),  # one partition is as much elsewhere
        ([20.0, 0.0], notice(8, 0, standby=1)),  # the same
        ([20.0, 2.0], notice(8, 2)),  # nobody else
        ([], notice(standby=2)),  # it stands by
        ([20.0, 2.0], None),  # a leader that it does not understand
    ],
)
def test_no_reason_to_open(loads: list[float], told: Notice | None) -> None:
    """Nothing that a rebalance would better."""
    assert list(asks(made(told), lambda _: loads, range(1_000))) == []


@pytest.mark.parametrize("others", [2, 40])
def test_too_full_asks_whatever_the_others_loads_were(others: float) -> None:
    """They may have emptied since: nobody would tell, if nobody asked."""
    trigger = made(notice(8, 2, others=others, opened=2))
    assert next(asks(trigger, lambda _: [14.0, 2.0], range(60)))[1] is Why.OPEN


def test_the_emptiest_closes_after_a_whole_period_of_less() -> None:
    """It takes the others' loads to have gone the way of its own."""
    told = notice(6, others=5, opened=2, closes=True)
    trigger = made(told)
    assert list(asks(trigger, lambda _: [6.0], range(200))) == []
    trigger.told(told, 200, changed=False)
    first = next(asks(trigger, lambda _: [FELL_TO * 6], range(200, 400)))
    assert first == (200 + SECONDS, Why.CLOSE)
    interrupted = made(told)
    assert list(asks(interrupted, lambda now: [4.0 if now % 50 else 6.0], range(1, 400))) == []


def test_any_other_closes_when_its_own_fall_suffices() -> None:
    """Others' loads as they were told: what it cannot see it does not hope for."""
    told = notice(10, others=6, opened=2)
    assert list(asks(made(told), lambda _: [6.0], range(200))) == []
    assert next(asks(made(told), lambda _: [3.5], range(200))) == (SECONDS, Why.CLOSE)


def test_loads_that_were_told_long_ago_keep_nobody_open() -> None:
    """Told in a peak, they would never fit; the own load's way is the better guess by then."""
    told = notice(30, others=60, opened=3)
    (when, why), *_ = asks(made(told), lambda _: [2.0], range(2_000))
    assert (when, why) == ((STALE + 1) * SECONDS, Why.CLOSE)


def test_the_only_worker_never_closes() -> None:
    """Somebody has to have the partitions."""
    assert list(asks(made(notice(6, 2, closes=True)), lambda _: [0.0, 0.0], range(500))) == []


def test_between_the_limits_a_group_rests() -> None:
    """What opened a second worker is no reason to close it: hysteresis from 0.6 to 0.9."""
    total = (CLOSE_TO + 0.05) * ROWS
    one = made(notice(total / 2, total / 2, standby=1))
    assert list(asks(one, lambda _: [total / 2] * 2, range(500))) == []
    half = made(notice(1.2 * total / 2, others=1.2 * total / 2, opened=2, closes=True))
    assert list(asks(half, lambda _: [total / 2], range(500))) == []


def test_nobody_asks_twice_within_a_period_whoever_asked() -> None:
    """The leader's notice says that somebody did."""
    full = notice(8, 8, standby=1)
    trigger = made(full)
    (first, _), *_ = asks(trigger, lambda _: [8.0, 8.0], range(100))
    assert list(asks(trigger, lambda _: [8.0, 8.0], range(100, 1_000))) == []  # it is on its way
    trigger.told(full, first, changed=True)
    second, _ = next(asks(trigger, lambda _: [8.0, 8.0], range(first, 1_000)))
    assert second - first >= SECONDS
    another = made(notice(8, 8, standby=1, asked=True), at=10)
    second, _ = next(asks(another, lambda _: [8.0, 8.0], range(10, 1_000)))
    assert second == 10 + SECONDS


def test_who_asked_in_vain_waits_longer_each_time() -> None:
    """Up to MAX_PATIENCE periods; what changed something makes it quick again."""
    full = notice(8, 8, standby=1)
    trigger = made(full)
    waits, last = [], 0
    for _ in range(6):
        second, _ = next(asks(trigger, lambda _: [8.0, 8.0], range(last, last + 10_000)))
        waits.append(second - last)
        trigger.told(full, second, changed=False)
        last = second
    assert waits[1:] == [each * SECONDS for each in (2, 4, 8, 8, 8)]
    assert MAX_PATIENCE == 8
    trigger.told(full, last, changed=False)  # somebody came or went: that was not our asking
    second, _ = next(asks(trigger, lambda _: [8.0, 8.0], range(last, last + 10_000)))
    trigger.told(full, second, changed=True)
    third, _ = next(asks(trigger, lambda _: [8.0, 8.0], range(second, second + 10_000)))
    assert third - second == SECONDS


@given(
    st.lists(st.floats(0, 2 * ROWS), min_size=200, max_size=200),
    st.lists(st.integers(0, 8), min_size=200, max_size=200),
    st.booleans(),
)
def test_whatever_the_load_does_there_is_one_rebalance_a_period(
    loads: list[float], delays: list[int], changed: bool
) -> None:
    """Any loads, any time until the assignment comes, fruitful or not."""
    trigger = made(notice(8, 8, standby=1, closes=True), at=0)
    asked: list[int] = []
    due = -1
    for second in range(200):
        here = loads[second] / 2
        if second == due:
            told = notice(here, here, others=2, opened=2, standby=1, closes=True)
            trigger.told(told, second, changed=changed)
        if trigger.ask([here, here], second) is not None:
            asked.append(second)
            due = second + delays[second] + 1
    assert all(b - a >= SECONDS for a, b in itertools.pairwise(asked))
