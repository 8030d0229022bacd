"""Who gets which partitions: legal and the same whatever was reported, few open, little moved."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.job import Partition
from aril.worker.placement.plan import (
    CLOSE_TO,
    DEFAULT_ROWS,
    EPSILON,
    FILL_TO,
    OPEN_ABOVE,
    Member,
    PartitionLoad,
    Plan,
    place,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

TOPICS = ("jobs.acme", "jobs.zeta", "jobs.sol")
ROWS = 16
Group = tuple[list[Member], list[Partition]]


def jobs(number: int) -> Partition:
    """Return a partition of the topic that all members of a plain group read."""
    return Partition("jobs", number)


def member(name: str, *loads: float, first: int = 0, **told: object) -> Member:
    """Return a member of a plain group that holds partitions of these loads."""
    held = {jobs(first + each): PartitionLoad(load) for each, load in enumerate(loads)}
    fields = {"topics": frozenset({"jobs"}), "rows": ROWS, "generation": 1, "held": held} | told
    return Member(name, **fields)  # type: ignore[arg-type]


def applied(members: Sequence[Member], plan: Plan) -> list[Member]:
    """Return what the members report when they hold what a plan gave them."""
    adapters = {source: load.adapters for each in members for source, load in each.held.items()}
    return [
        replace(
            each,
            rows=plan.rows[each.name],
            generation=each.generation + 1,
            held={
                source: PartitionLoad(plan.loads[source], adapters.get(source, ()))
                for source in plan.partitions[each.name]
            },
        )
        for each in members
    ]


@st.composite
def groups(draw: st.DrawFn, *, plain: bool = False) -> Group:
    """Return members and partitions; plain: all alike, of one topic, everything known."""
    topics = TOPICS[:1] if plain else TOPICS
    partitions = [
        Partition(topic, number)
        for topic in topics
        for number in range(draw(st.integers(1 if plain else 0, 8)))
    ]
    loads = st.floats(0, 1.5 * ROWS)
    members = []
    for number in range(draw(st.integers(1, 7))):
        held = {}
        if partitions:
            for source in draw(st.lists(st.sampled_from(partitions), unique=True)):
                rows = draw(loads if plain else st.none() | loads)
                held[source] = PartitionLoad(rows, tuple(draw(st.sets(st.integers(0, 4)))))
        members.append(
            Member(
                f"m{number}",
                frozenset(topics) if plain else draw(st.frozensets(st.sampled_from(topics))),
                rows=ROWS if plain else draw(st.none() | st.integers(1, 64)),
                generation=draw(st.integers(-1, 3)),
                held=held,
                adapters=frozenset(draw(st.sets(st.integers(0, 4)))),
                draining=not plain and draw(st.booleans()),
            )
        )
    return members, partitions


@given(groups())
def test_every_partition_with_a_reader_is_placed_exactly_once(group: Group) -> None:
    """With a reader of its topic, and nobody gets what it does not read; each member is named."""
    members, partitions = group
    plan = place(members, partitions)
    assert set(plan.partitions) == {each.name for each in members}
    given_out = [each for held in plan.partitions.values() for each in held]
    read = set().union(*(each.topics for each in members))
    assert sorted(given_out) == sorted(each for each in partitions if each.topic in read)
    for each in members:
        assert {source.topic for source in plan.partitions[each.name]} <= each.topics


@given(groups(), st.randoms(use_true_random=False))
def test_a_plan_does_not_depend_on_the_order_of_anything(
    group: Group, shuffled: random.Random
) -> None:
    """Whoever leads makes the same plan."""
    members, partitions = group
    plan = place(members, partitions)
    others = [
        replace(each, held=dict(shuffled.sample(list(each.held.items()), len(each.held))))
        for each in shuffled.sample(members, len(members))
    ]
    assert place(others, shuffled.sample(partitions, len(partitions))) == plan


@given(groups())
def test_a_plan_applied_to_its_own_result_moves_nothing(group: Group) -> None:
    """Where no load changed a rebalance costs no stream."""
    members, partitions = group
    plan = place(members, partitions)
    again = place(applied(members, plan), partitions)
    assert again.moved == 0
    assert again.partitions == plan.partitions


@given(groups())
def test_nobody_is_too_full_while_somebody_had_room(group: Group) -> None:
    """Above OPEN_ABOVE is only who has one loaded partition, or what nobody could take."""
    members, partitions = group
    plan = place(members, partitions)
    by_name = {each.name: each for each in members}
    for name, held in plan.partitions.items():
        loaded = [each for each in held if plan.loads[each] > 0]
        if plan.load(name) <= OPEN_ABOVE * plan.rows[name] + EPSILON or len(loaded) < 2:
            continue
        for source in loaded:
            for other, has in plan.partitions.items():
                able = source.topic in by_name[other].topics and not by_name[other].draining
                if other == name or not able:
                    continue
                assert has, f"{other} stands by beside {name}"
                filled = plan.load(other) + plan.loads[source]
                assert filled > FILL_TO * plan.rows[other], f"{other} had room for {source}"


@given(groups())
def test_a_draining_member_gets_only_what_nobody_else_reads(group: Group) -> None:
    """It is about to leave: whatever it gets moves twice."""
    members, partitions = group
    plan = place(members, partitions)
    staying = set().union(*(each.topics for each in members if not each.draining))
    for each in members:
        if each.draining:
            assert not {source.topic for source in plan.partitions[each.name]} & staying


@given(groups(plain=True))
def test_few_workers_are_open(group: Group) -> None:
    """Any two of them have more than CLOSE_TO of one: so about twice the fewest are the most."""
    members, partitions = group
    plan = place(members, partitions)
    total = sum(plan.loads.values())
    assert len(plan.open) <= 1 + total / (CLOSE_TO * ROWS / 2)
    assert plan.standby == len(members) - len(plan.open)


@given(groups(plain=True))
def test_where_nothing_is_known_nobody_is_swamped(group: Group) -> None:
    """Members that told nothing readable: a plan nonetheless, that fills all but the last alike."""
    members, partitions = group
    silent = [Member(each.name, each.topics) for each in members]
    plan = place(silent, partitions)
    assert sorted(sum(plan.partitions.values(), ())) == sorted(partitions)
    assert set(plan.rows.values()) == {DEFAULT_ROWS}
    most = math.ceil(len(partitions) / len(members) * OPEN_ABOVE / FILL_TO)
    assert max(map(len, plan.partitions.values())) <= most


def test_a_low_load_ends_on_one_worker() -> None:
    """Three with little each: two are emptied at once, onto the fullest."""
    group = [member("a", 1, 1), member("b", 2, 2, first=2), member("c", 1, 0, first=4)]
    plan = place(group, map(jobs, range(6)))
    assert plan.partitions == {"a": (), "b": tuple(map(jobs, range(6))), "c": ()}
    assert (plan.open, plan.standby, plan.moved) == (["b"], 2, 4)


def test_a_full_worker_opens_one_that_stands_by_and_gives_the_fewest() -> None:
    """The smallest partition that brings it down to FILL_TO goes, and no other."""
    group = [member("a", 2, 4, 9), member("b")]
    plan = place(group, map(jobs, range(3)))
    assert plan.partitions == {"a": (jobs(0), jobs(2)), "b": (jobs(1),)}
    assert plan.moved == 1


@pytest.mark.parametrize("load", [FILL_TO * ROWS + 0.5, OPEN_ABOVE * ROWS])
def test_between_the_two_limits_nothing_moves(load: float) -> None:
    """What opened a second worker does not close it again a moment later."""
    alone = [member("a", load / 2, load / 2), member("b")]
    assert place(alone, map(jobs, range(2))).moved == 0
    two = [member("a", load / 2), member("b", load / 2, first=1)]
    assert place(two, map(jobs, range(2))).moved == 0


def test_what_a_dead_worker_had_goes_where_its_adapters_are() -> None:
    """Of two open workers with room the one that has the adapters; without adapters the fuller."""
    lost = Partition("jobs", 9)
    fuller = member("full", 8)
    knows = replace(member("knows", 7.9, first=1), adapters=frozenset({5}))
    gone = member("gone", first=9, held={lost: PartitionLoad(1.0, (5,))}, draining=True)
    sources = [jobs(0), jobs(1), lost]
    assert lost in place([fuller, knows, gone], sources).partitions["knows"]
    unknown = replace(gone, held={lost: PartitionLoad(1.0)})
    assert lost in place([fuller, knows, unknown], sources).partitions["full"]


def test_of_two_owners_the_later_one_keeps_it() -> None:
    """A member that was away names what was given to another meanwhile."""
    back = member("a", 3, generation=4)
    owner = member("b", 3, generation=5)
    assert place([back, owner], [jobs(0)]).partitions["b"] == (jobs(0),)
    thrown_out = member("b", 3, generation=-1)
    assert place([back, thrown_out], [jobs(0)]).partitions["a"] == (jobs(0),)


def test_unknown_loads_are_taken_to_be_like_the_known() -> None:
    """A new tenant's topic has no load yet: it neither opens a worker nor counts as nothing."""
    plan = place([member("a", 2, 4)], map(jobs, range(3)))
    assert plan.loads[jobs(2)] == 3


def test_what_nobody_reads_is_left_out() -> None:
    """A topic that nobody subscribed to is no reason to fail."""
    plan = place([member("a", 1)], [jobs(0), Partition("other", 0)])
    assert plan.partitions == {"a": (jobs(0),)}
    assert place([], [jobs(0)]).partitions == {}


@given(groups())
def test_moves_are_counted(group: Group) -> None:
    """``moved`` is what a living owner lost, where two say so by the later."""
    members, partitions = group
    owners = {
        source: each.name
        for each in sorted(members, key=lambda each: each.generation)
        for source in each.held
    }
    plan = place(members, partitions)
    got = {source: name for name, held in plan.partitions.items() for source in held}
    assert plan.moved == sum(owners.get(each, name) != name for each, name in got.items())
