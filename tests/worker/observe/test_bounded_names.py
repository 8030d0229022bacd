"""Names in labels: at most so many, the heaviest of late, and no increment is booked twice."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from aril.worker.observe.metrics.bounded_names import (
    HALF_LIFE_SECONDS,
    OTHER,
    TRACKED,
    BoundedNames,
)


def test_the_first_have_names_and_the_rest_are_one() -> None:
    """A deployment with few tenants has all of them by name."""
    names = BoundedNames(2, forget=lambda _: None)
    assert [names.use(name, 1, 0.0) for name in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]
    assert (names.label("a"), names.label("c")) == ("a", OTHER)


def test_nobody_is_named_where_nobody_may_be() -> None:
    """0 is none, however much they use."""
    names = BoundedNames(0, forget=lambda _: None)
    assert {names.use("a", 1e9, 0.0) for _ in range(3)} == {OTHER}
    assert names.named == ()


def test_who_is_clearly_heavier_takes_the_lightest_ones_place() -> None:
    """Not at equal weight, so that two of a kind do not take turns."""
    lost: list[str] = []
    names = BoundedNames(2, forget=lost.append)
    names.use("heavy", 100, 0.0)
    names.use("light", 10, 0.0)
    assert names.use("new", 12, 0.0) == OTHER
    assert lost == []
    assert names.use("new", 1, 0.0) == "new"
    assert lost == ["light"]
    assert names.use("light", 1, 0.0) == OTHER


def test_yesterdays_heaviest_gives_way() -> None:
    """Weights halve every hour."""
    lost: list[str] = []
    names = BoundedNames(1, forget=lost.append)
    names.use("yesterday", 1_000, 0.0)
    assert names.use("today", 10, 1.0) == OTHER
    assert names.use("today", 10, 10 * HALF_LIFE_SECONDS) == "today"
    assert lost == ["yesterday"]


def test_strangers_without_end_take_no_memory_and_nobodys_name() -> None:
    """Names come from tenants: each job may have another."""
    lost: list[str] = []
    names = BoundedNames(2, forget=lost.append)
    for number in range(5_000):
        names.use("a", 50, 0.0)
        names.use("b", 50, 0.0)
        names.use(f"stranger-{number}", 1, 0.0)
    assert lost == []
    assert names.named == ("a", "b")
    assert len(names._others) <= TRACKED * 2


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 50)), max_size=200),
    st.integers(1, 4),
)
def test_each_increment_is_in_one_series(uses: list[tuple[str, int]], most: int) -> None:
    """So what is booked adds up, there are never more than so many, and none but by its name."""
    booked: Counter[str] = Counter()
    gone: Counter[str] = Counter()

    def forget(name: str) -> None:
        gone[name] += booked.pop(name)

    names = BoundedNames(most, forget=forget)
    for name, weight in uses:
        label = names.use(name, weight, 0.0)
        assert label in {name, OTHER}
        booked[label] += weight
        assert len(booked.keys() - {OTHER}) <= most
    assert booked.total() + gone.total() == sum(weight for _, weight in uses)
