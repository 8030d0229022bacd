"""Shares of an engine: who gives way, that it is enough, and that nobody takes it back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from aril.worker.batching.shares import Capacity, Shares, Use, giving_way

ROOM = Capacity(rows=6, slots=3, tokens=60)
WEIGHTS = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 0.5}


def even(_: str) -> float:
    """Weigh all tenants alike."""
    return 1.0


def test_a_newcomer_takes_the_youngest_row_of_a_flood() -> None:
    """One tenant has all rows: the next one's job runs at once."""
    flood = [Use("flood")] * 6
    assert giving_way(flood, Use("new"), ROOM, even) == [5]


def test_alone_a_tenant_keeps_all_rows() -> None:
    """Its own jobs take nothing from each other."""
    assert giving_way([Use("a")] * 6, Use("a"), ROOM, even) == []


def test_rows_are_taken_until_shares_are_even() -> None:
    """Half each, and not a row more."""
    running = [Use("a")] * 6
    for _ in range(10):
        places = giving_way(running, Use("b"), ROOM, even)
        for place in sorted(places, reverse=True):
            del running[place]
        if len(running) < ROOM.rows:
            running.append(Use("b"))
    assert sorted(use.tenant for use in running) == ["a"] * 3 + ["b"] * 3


def test_a_weight_is_a_larger_share() -> None:
    """At twice the weight it may have twice the rows."""
    running = [Use("a"), Use("a"), *[Use("c")] * 4]
    assert giving_way(running, Use("a"), ROOM, WEIGHTS.__getitem__) == []
    assert giving_way(running, Use("b"), ROOM, WEIGHTS.__getitem__) == [5]


def test_for_a_slot_those_go_that_share_the_adapter_with_the_fewest_rows() -> None:
    """Rows are free, but all slots are taken by one tenant's adapters."""
    running = [Use("a", frozenset(name)) for name in "xxyzz"]
    assert giving_way(running, Use("b", frozenset("w")), ROOM, even) == [2]


def test_a_slot_is_not_taken_where_the_adapter_is_there() -> None:
    """What both use takes no slot of its own."""
    running = [Use("a", frozenset(name)) for name in "xyz"]
    assert giving_way(running, Use("b", frozenset("x")), ROOM, even) == []


def test_memory_is_shared_out_too() -> None:
    """Two rows, but with all of the cache: they are the ones that give way."""
    running = [Use("a", tokens=10), Use("big", tokens=25), Use("big", tokens=25)]
    assert giving_way(running, Use("b", tokens=20), ROOM, even) == [2]


def test_one_that_asks_for_most_itself_takes_nothing() -> None:
    """Its share would be larger than what it leaves to the others."""
    running = [Use("a", tokens=20), Use("c", tokens=20), Use("d", tokens=20)]
    assert giving_way(running, Use("b", tokens=50), ROOM, even) == []


USES = st.builds(
    Use,
    tenant=st.sampled_from("abcd"),
    adapters=st.frozensets(st.sampled_from("vwxyz"), max_size=2),
    tokens=st.integers(0, 25),
)


def fits(running: list[Use]) -> bool:
    """Tell by plain counting."""
    adapters = {each for use in running for each in use.adapters}
    return len(running) <= 1 or (
        len(running) <= ROOM.rows
        and len(adapters) <= ROOM.slots
        and sum(use.tokens for use in running) <= (ROOM.tokens or 0)
    )


@given(st.lists(USES, max_size=40))
def test_whatever_comes_it_ends_and_the_least_has_no_less(arrivals: list[Use]) -> None:
    """Jobs come and all wait for room; those that gave way come again, and it comes to rest."""
    running: list[Use] = []
    waiting: list[Use] = []
    for arrival in arrivals:
        waiting.append(arrival)
        exchanges = 0
        at = 0
        while at < len(waiting):
            newcomer = waiting[at]
            shares = Shares(ROOM, WEIGHTS.__getitem__, running)
            if shares.fits(newcomer):
                running.append(waiting.pop(at))
                at = 0
                continue
            places = giving_way(running, newcomer, ROOM, WEIGHTS.__getitem__)
            if not places:
                at += 1
                continue
            exchanges += 1
            assert exchanges < 200, "they take it from each other for ever"
            before = shares.of(newcomer.tenant)
            gone = [running[place] for place in places]
            left = [use for place, use in enumerate(running) if place not in places]
            running = [*left, newcomer]
            assert fits(running)
            after = Shares(ROOM, WEIGHTS.__getitem__, running)
            for use in gone:
                assert use.tenant != newcomer.tenant
                assert shares.of(use.tenant) > before
            assert min(after.of(use.tenant) for use in gone) >= before
            waiting.pop(at)
            waiting += gone
            at = 0


@given(st.lists(USES, max_size=20), st.data())
def test_what_was_added_and_removed_counts_no_more(uses: list[Use], data: st.DataObject) -> None:
    """Sums kept along the way are those of what is left."""
    shares = Shares(ROOM, WEIGHTS.__getitem__, uses)
    left = list(uses)
    for _ in range(data.draw(st.integers(0, len(uses)))):
        shares.remove(left.pop(data.draw(st.integers(0, len(left) - 1))))
    fresh = Shares(ROOM, WEIGHTS.__getitem__, left)
    for tenant in "abcd":
        assert shares.of(tenant) == fresh.of(tenant)
    newcomer = Use("a", frozenset("v"), 5)
    assert shares.fits(newcomer) == fresh.fits(newcomer)


@settings(max_examples=300)
@given(st.lists(USES, max_size=8), USES)
def test_where_it_is_not_worth_looking_nobody_gives_way(running: list[Use], newcomer: Use) -> None:
    """What is told at a glance holds for whoever looks closely, and nothing is changed by it."""
    shares = Shares(ROOM, WEIGHTS.__getitem__, running)
    before = [shares.of(tenant) for tenant in "abcd"]
    worth = shares.may_find_room(newcomer, shares.spare(running))
    assert worth or not giving_way(running, newcomer, ROOM, WEIGHTS.__getitem__)
    assert [shares.of(tenant) for tenant in "abcd"] == before
