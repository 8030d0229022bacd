"""What is remembered of finished jobs, and the one bound over all partitions."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.schemas import Epoch
from aril.schemas.limits import MAX_EPOCH_PART, MAX_OFFSET, MAX_PARTITION
from aril.worker.job import Asked
from aril.worker.queue.assignment import Identity, Membership, PartitionState
from aril.worker.queue.identities import SLACK_PART, FinishedJobs, IdentityBound
from tests.support.entries import JOBS, entry_of

PARTITIONS = 3
OF_ALL = 12
OF_A_PARTITION = 8

asked = st.builds(
    Asked,
    digest=st.binary(min_size=16, max_size=16),
    reply_from=st.none() | st.integers(0, MAX_OFFSET),
    reply_partition=st.none() | st.integers(0, MAX_PARTITION),
    unanswered=st.none()
    | st.builds(Epoch, st.integers(0, MAX_EPOCH_PART), st.integers(1, MAX_EPOCH_PART)),
)
finishes = st.lists(
    st.tuples(st.integers(0, PARTITIONS - 1), st.integers(0, 9), asked), max_size=100
)


def held(count: int, bound: IdentityBound) -> list[FinishedJobs]:
    """Return so many partitions, bounded together."""
    partitions = [FinishedJobs(bound) for _ in range(count)]
    bound.hold(partitions)
    return partitions


def finish(jobs: FinishedJobs, numbers: range) -> None:
    """Let a partition finish jobs."""
    for number in numbers:
        jobs.add("acme", f"j{number}", Asked(b"d" * 16, number, None))


def known(jobs: FinishedJobs, numbers: range) -> list[int]:
    """Return which of these jobs a partition remembers."""
    return [number for number in numbers if jobs.find("acme", f"j{number}") is not None]


@given(asked, asked)
def test_what_was_asked_is_told_as_it_was(first: Asked, second: Asked) -> None:
    """Every field, at its bounds too; of a job that was finished twice, what it asked last."""
    (jobs,) = held(1, IdentityBound())
    jobs.add("acme", "a", first)
    assert jobs.find("acme", "a") == first
    jobs.add("acme", "a", second)
    assert jobs.find("acme", "a") == second
    assert len(jobs) == 1


@given(finishes)
def test_partitions_remember_as_dicts_would(given: list[tuple[int, int, Asked]]) -> None:
    """Nothing that was not; the newest of each, an even part of the bound at least."""
    partitions = held(PARTITIONS, IdentityBound(of_all=OF_ALL, of_a_partition=OF_A_PARTITION))
    oracle: list[OrderedDict[str, Asked]] = [OrderedDict() for _ in partitions]
    for number, job, what in given:
        partitions[number].add("acme", f"j{job}", what)
        oracle[number][f"j{job}"] = what
        oracle[number].move_to_end(f"j{job}")
    for jobs, all_of_it in zip(partitions, oracle, strict=True):
        newest = [*all_of_it][len(all_of_it) - len(jobs) :]
        assert len(jobs) >= min(len(all_of_it), OF_ALL // PARTITIONS)
        assert len(jobs) <= OF_A_PARTITION + OF_A_PARTITION // SLACK_PART
        for name, what in all_of_it.items():
            assert jobs.find("acme", name) == (what if name in newest else None)
        assert jobs.find("other", next(iter(all_of_it), "")) is None
    assert sum(map(len, partitions)) <= OF_ALL + OF_ALL // SLACK_PART


def test_a_job_that_is_finished_again_is_the_newest() -> None:
    """It was answered only now: others are forgotten before it."""
    (jobs,) = held(1, IdentityBound(of_a_partition=2))
    for number in (0, 1, 0, 2):
        finish(jobs, range(number, number + 1))
    assert known(jobs, range(3)) == [0, 2]


def test_a_busy_partition_has_what_quiet_ones_leave() -> None:
    """It takes nothing of theirs, and gives way when they need it."""
    bound = IdentityBound(of_all=400, of_a_partition=300)
    busy, *quiet = held(4, bound)
    for each in quiet:
        finish(each, range(30))
    finish(busy, range(1_000))
    assert 280 <= len(busy) <= 310
    assert [known(each, range(30)) for each in quiet] == [[*range(30)]] * 3
    for each in quiet:
        finish(each, range(100))
    assert [len(each) for each in quiet] == [100] * 3
    assert known(busy, range(900, 1_000)) == [*range(900, 1_000)]
    assert len(busy) <= 100 + 100 // SLACK_PART


def test_partitions_that_go_leave_their_room() -> None:
    """With fewer partitions one may remember as much as it could alone, from then on."""
    bound = IdentityBound(of_all=400, of_a_partition=300)
    first, *others = held(8, bound)
    for each in (first, *others):
        finish(each, range(100))
    assert len(first) <= 53
    bound.hold([first])
    finish(first, range(1_000, 1_300))
    assert known(first, range(1_000, 1_300)) == [*range(1_000, 1_300)]


def test_partitions_that_come_do_not_pass_the_bound() -> None:
    """What they bring along from the assignment before is cut to an even part at once."""
    bound = IdentityBound(of_all=400, of_a_partition=300)
    partitions = held(1, bound) + held(1, bound) + held(1, bound)
    for each in partitions:
        bound.hold([each])
        finish(each, range(300))
    bound.hold(partitions)
    assert sum(map(len, partitions)) <= 400
    assert all(known(each, range(300 - 133, 300)) for each in partitions)


def test_more_partitions_than_identities_remember_one_each() -> None:
    """The bound gives way, not the newest job."""
    for each in (partitions := held(10, IdentityBound(of_all=5))):
        finish(each, range(3))
    assert [known(each, range(3)) for each in partitions] == [[2]] * 10


@pytest.mark.parametrize(("generation", "meaning"), [(4, Identity.REPEATED), (5, Identity.NEW)])
def test_what_is_remembered_goes_on_with_the_partition(generation: int, meaning: Identity) -> None:
    """Across a rebalance after which nobody can have had it in between, and no other."""
    bound = IdentityBound()
    before = PartitionState(JOBS, Membership(1, 3, "m"), 0, bound=bound)
    bound.hold([before.finished_jobs])
    assert before.read(0)
    before.add(entry := entry_of("a"))
    before.finish(entry)
    after = PartitionState(JOBS, Membership(2, generation, "m"), 1, None, before, bound=bound)
    bound.hold([after.finished_jobs])
    assert after.identify("acme", "a", entry.digest)[0] is meaning
    if meaning is Identity.REPEATED:
        assert after.identify("acme", "a", b"other")[0] is Identity.CONFLICT
