"""The window: bounded waiting, full batches, order, and nothing lost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.batching.shares import Capacity, Shares, Use
from aril.worker.batching.window import BatchLimits, Window

if TYPE_CHECKING:
    from collections.abc import Iterable

ItemT = TypeVar("ItemT")

LIMITS = BatchLimits(rows=4, tokens=100, adapters=2)


def offer(
    window: Window[str],
    item: str,
    since: float,
    *,
    tenant: str = "acme",
    adapters: Iterable[str] = (),
    tokens: int = 1,
) -> None:
    """Offer with defaults that fit anywhere."""
    window.offer(item, Use(tenant, frozenset(adapters), tokens), since=since)


def take(
    window: Window[ItemT], *, now: float, busy: bool, rows: int, running: Iterable[Use] = ()
) -> list[ItemT]:
    """Take beside what runs."""
    shares = Shares(Capacity(rows=8, slots=8), lambda _: 1.0, running)
    return window.take(now=now, busy=busy, rows=rows, shares=shares)


def test_an_idle_engine_waits_for_company() -> None:
    """The batch is held until the window of its first job ends, then goes together."""
    window = Window[str](seconds=5, limits=LIMITS)
    offer(window, "a", 10)
    offer(window, "b", 14)
    assert window.closes_at() == 15
    assert take(window, now=14.9, busy=False, rows=4) == []
    assert take(window, now=15, busy=False, rows=4) == ["a", "b"]
    assert window.closes_at() is None


def test_a_busy_engine_is_joined_at_once() -> None:
    """While the engine works, jobs join at the step boundary as far as there is room."""
    window = Window[str](seconds=5, limits=LIMITS)
    for name in "abc":
        offer(window, name, 10)
    assert take(window, now=10, busy=True, rows=2) == ["a", "b"]
    assert take(window, now=10, busy=True, rows=0) == []
    assert take(window, now=10, busy=True, rows=1) == ["c"]


@pytest.mark.parametrize(
    ("offers", "closes"),
    [
        ([{}] * 4, True),
        ([{}] * 3, False),
        ([{"tokens": 50}] * 2, True),
        ([{"adapters": {name}} for name in "xy"], False),
        ([{"adapters": {name}} for name in "xyz"], True),
    ],
    ids=["rows", "rows-left", "tokens", "adapters-left", "adapters"],
)
def test_a_full_batch_closes_early(offers: list[dict[str, Any]], closes: bool) -> None:
    """Rows, tokens or adapter slots: whichever is full first closes the window."""
    window = Window[str](seconds=5, limits=LIMITS)
    for number, settings in enumerate(offers):
        offer(window, str(number), 10, **settings)
    assert bool(take(window, now=10, busy=False, rows=4)) is closes


def test_an_adapter_that_finds_no_slot_is_passed_by_others_but_not_by_its_tenant() -> None:
    """A third adapter waits for the next batch; its tenant's later jobs wait behind it."""
    window = Window[str](seconds=0, limits=LIMITS)
    offer(window, "1", 0, adapters={"x"}, tenant="t1")
    offer(window, "2", 0, adapters={"y"}, tenant="t2")
    offer(window, "3", 0, adapters={"z"}, tenant="t3")
    offer(window, "4", 0, tenant="t3")
    offer(window, "5", 0, adapters={"x"}, tenant="t4")
    assert take(window, now=0, busy=False, rows=4) == ["1", "2", "5"]
    assert take(window, now=0, busy=False, rows=4) == ["3", "4"]


def test_who_holds_least_is_next() -> None:
    """Rows go round by what tenants hold of the engine, not by who came first."""
    window = Window[str](seconds=0, limits=LIMITS)
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        offer(window, name, 0, tenant=name[0])
    running = [Use("a"), Use("a"), Use("b")]
    assert take(window, now=0, busy=True, rows=2, running=running) == ["c1", "b1"]
    assert take(window, now=0, busy=True, rows=4) == ["a1", "b2", "a2", "a3"]


def test_a_job_that_ran_already_waits_where_it_did() -> None:
    """It is before what its tenant sent later, whenever it comes back."""
    window = Window[str](seconds=0, limits=LIMITS)
    offer(window, "later", 5)
    offer(window, "back", 1)
    assert take(window, now=6, busy=True, rows=1) == ["back"]


def test_a_job_that_may_not_run_holds_up_its_own_tenant_only() -> None:
    """Whoever has reached a limit waits in its order; the others go on."""
    window = Window[str](seconds=0, limits=LIMITS)
    offer(window, "1", 0, tenant="a", tokens=9)
    offer(window, "2", 0, tenant="a")
    offer(window, "3", 0, tenant="b")
    shares = Shares(Capacity(rows=8, slots=8), lambda _: 1.0)
    taken = window.take(now=0, busy=True, rows=4, shares=shares, may=lambda use: use.tokens < 9)
    assert taken == ["3"]
    assert take(window, now=0, busy=True, rows=4) == ["1", "2"]


def test_an_oversized_job_goes_alone() -> None:
    """A job beyond the token limit is not refused here and does not wait for ever."""
    window = Window[str](seconds=0, limits=LIMITS)
    offer(window, "big", 0, tokens=1_000)
    offer(window, "small", 0)
    assert take(window, now=0, busy=False, rows=4) == ["big"]
    assert take(window, now=0, busy=False, rows=4) == ["small"]


def test_a_cancelled_job_leaves() -> None:
    """A discarded job is never handed out."""
    window = Window[str](seconds=0, limits=LIMITS)
    offer(window, "a", 0)
    assert window.discard("a")
    assert not window.discard("a")
    assert take(window, now=1, busy=False, rows=4) == []


@dataclass(frozen=True)
class Arrival:
    """One job of a random history."""

    gap: int
    tenant: str
    adapters: frozenset[str]
    tokens: int
    first: bool


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        gap=st.integers(0, 3),
        tenant=st.sampled_from(["a", "b", "c"]),
        adapters=st.frozensets(st.sampled_from("wxyz"), max_size=3),
        tokens=st.integers(1, 150),
        first=st.booleans(),
    ),
    max_size=30,
)


def test_what_comes_first_goes_before_all_others() -> None:
    """Whatever its tenant has, and however long the others wait; each tenant's limits hold."""
    window = Window[str](seconds=5, limits=LIMITS)
    for number, tenant in enumerate(("idle", "idle", "busy", "held")):
        offer(window, f"{tenant}{number}", number, tenant=tenant)
    for name in ("busy", "held"):
        use = Use(name, frozenset(), 1)
        window.offer(f"first of {name}", use, since=10, first=True)
    shares = Shares(Capacity(rows=8, slots=8), lambda _: 1.0, [Use("busy", frozenset(), 1)] * 4)
    assert window.closes_at() == 0

    def next_one() -> list[str]:
        may = lambda use: use.tenant != "held"  # noqa: E731 - a word of each call
        return window.take(now=9, busy=True, rows=1, shares=shares, may=may)

    taken = [next_one() for _ in range(4)]
    assert taken == [["first of busy"], ["idle0"], ["idle1"], ["busy2"]]
    assert [*window] == ["first of held", "held3"]


@given(ARRIVALS, st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=10))
def test_random_histories(arrivals: list[Arrival], engine: list[tuple[bool, int]]) -> None:
    """Whatever arrives: batches keep the limits, order per tenant holds, nothing is lost."""
    window = Window[int](seconds=2, limits=LIMITS)
    left = defaultdict(list)
    seen: list[int] = []
    now = 0
    for number, arrival in enumerate(arrivals):
        now += arrival.gap
        use = Use(arrival.tenant, arrival.adapters, arrival.tokens)
        window.offer(number, use, since=now, first=arrival.first)
        busy, rows = engine[number % len(engine)]
        due = window.closes_at()
        batch = take(window, now=now, busy=busy, rows=rows)
        assert len(batch) <= min(rows, LIMITS.rows)
        if rows and due is not None and (busy or now >= due):
            assert batch, "room and due, yet nothing was taken"
        adapters = set().union(*(arrivals[each].adapters for each in batch))
        assert len(adapters) <= LIMITS.adapters or len(batch) == 1
        assert len(batch) == 1 or sum(arrivals[each].tokens for each in batch) <= LIMITS.tokens
        seen += batch
    while batch := take(window, now=now + 2, busy=False, rows=LIMITS.rows):
        seen += batch
    assert sorted(seen) == list(range(len(arrivals)))
    for number in seen:
        left[arrivals[number].tenant, arrivals[number].first].append(number)
    assert all(numbers == sorted(numbers) for numbers in left.values())


@given(ARRIVALS)
def test_no_job_waits_longer_than_the_bound(arrivals: list[Arrival]) -> None:
    """With an idle engine that takes whenever the window says so, waiting ends by the bound.

    A batch that leaves jobs behind is followed by the next at the same instant, as an engine
    that finished it would do; so the bound holds for the leftovers too.
    """
    seconds = 2
    window = Window[int](seconds=seconds, limits=LIMITS)
    arrived: dict[int, int] = {}
    now = 0

    def collect(until: int) -> None:
        while (due := window.closes_at()) is not None and due <= until:
            for number in take(window, now=due, busy=False, rows=LIMITS.rows):
                assert due - arrived[number] <= seconds

    for number, arrival in enumerate(arrivals):
        collect(now + arrival.gap)
        now += arrival.gap
        arrived[number] = now
        use = Use(arrival.tenant, arrival.adapters, arrival.tokens)
        window.offer(number, use, since=now, first=arrival.first)
    collect(now + seconds)
    assert len(window) == 0
