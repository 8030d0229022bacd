"""The backlog: fair by tenant, ordered within one, bounded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from aril.worker.batching.backlog import Backlog
from aril.worker.batching.counters import Counters


@dataclass(eq=False)
class Job:
    """A job as the backlog sees it."""

    tenant: str
    number: int = 0
    priority: int = 0
    prompt_tokens: int = 10
    most_tokens: int = 0
    source: str = "p0"
    size: int = 100
    shelved: bool = False
    whole_size: int = 100
    charged: float = 0.0
    charge: float = 0.0


def new() -> Backlog[Job]:
    """Return a backlog that is never full in these tests."""
    return Backlog(max_jobs_per_source=1_000, max_bytes=1_000_000)


def test_a_flood_does_not_hold_up_the_others() -> None:
    """A tenant with one job is served second at the latest, however many the other has."""
    backlog = new()
    for number in range(100):
        backlog.push(Job("flood", number))
    backlog.push(Job("small"))
    assert [backlog.pop().tenant for _ in range(3)] == ["flood", "small", "flood"]  # type: ignore[union-attr] # they wait


def test_work_counts_and_not_jobs() -> None:
    """A tenant whose jobs cost twice as much gets half as many turns."""
    backlog = new()
    for number in range(60):
        backlog.push(Job("dear", number, prompt_tokens=20))
        backlog.push(Job("cheap", number, prompt_tokens=10))
    turns = Counter(job.tenant for _ in range(60) if (job := backlog.pop()))
    assert 38 <= turns["cheap"] <= 42


def test_idling_saves_up_nothing() -> None:
    """A tenant that comes back takes turns; it does not get all that it did not use."""
    backlog = new()
    for number in range(50):
        backlog.push(Job("busy", number))
    for _ in range(40):
        backlog.pop()
    for number in range(10):
        backlog.push(Job("back", number))
    turns = [job.tenant for _ in range(6) if (job := backlog.pop())]
    assert turns.count("busy") == 3


def test_priority_rules_within_a_tenant_only() -> None:
    """Higher priority values go first for their tenant, and cost the others no turn."""
    backlog = new()
    backlog.push(Job("a", 1, priority=-5))
    backlog.push(Job("a", 2, priority=5))
    backlog.push(Job("b", 3, priority=-100))
    order = [(job.tenant, job.number) for _ in range(3) if (job := backlog.pop())]
    assert order == [("a", 2), ("b", 3), ("a", 1)]


def test_a_job_that_goes_before_its_turn_costs_its_tenant_a_later_one() -> None:
    """Taken out of turn it is served once, and the others make up for it."""
    backlog = new()
    jobs = [Job("a", number) for number in range(6)]
    for waiting in (*jobs, *(Job("b", number) for number in range(6))):
        backlog.push(waiting)
    assert backlog.take(jobs[4])
    assert backlog.take(jobs[5])
    assert not backlog.take(jobs[5])
    order = [job for _ in range(10) if (job := backlog.pop())]
    assert [job.tenant for job in order[:6]].count("a") == 2
    assert sorted(job.number for job in order if job.tenant == "a") == [0, 1, 2, 3]
    assert len(backlog) == 0


def test_a_discarded_job_is_never_served() -> None:
    """Cancelling a waiting job frees its memory at once."""
    backlog = new()
    first, second = Job("a", 1), Job("a", 2)
    backlog.push(first)
    backlog.push(second)
    assert backlog.discard(first)
    assert not backlog.discard(first)
    assert (len(backlog), backlog.bytes) == (1, 100)
    assert backlog.pop() is second
    assert backlog.pop() is None


def test_fullness_is_told_by_partition_and_by_bytes() -> None:
    """A full partition is named; a full memory stops all of them."""
    backlog: Backlog[Job] = Backlog(max_jobs_per_source=2, max_bytes=450)
    backlog.push(Job("a", source="p0"))
    backlog.push(Job("a", source="p0"))
    assert backlog.full("p0")
    assert not backlog.full("p1")
    backlog.push(Job("a", source="p1", size=300))
    assert backlog.full("p1")
    backlog.pop()
    assert not backlog.full("p0")


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(-2, 2), st.integers(1, 50), st.booleans()),
        max_size=60,
    )
)
def test_nothing_is_lost_and_tenants_keep_their_order(
    steps: list[tuple[str, int, int, bool]],
) -> None:
    """Over random pushes and pops every job comes out once, each tenant's in its order."""
    backlog = new()
    out: list[Job] = []
    for number, (tenant, priority, cost, pop) in enumerate(steps):
        backlog.push(Job(tenant, number, priority=priority, prompt_tokens=cost))
        if pop:
            job = backlog.pop()
            assert job is not None
            out.append(job)
    drained = []
    while (job := backlog.pop()) is not None:
        drained.append(job)
    assert sorted(job.number for job in out + drained) == list(range(len(steps)))
    for tenant in "abcd":
        rest = [(-job.priority, job.number) for job in drained if job.tenant == tenant]
        assert rest == sorted(rest)
    assert (len(backlog), backlog.bytes) == (0, 0)


def test_a_tenant_that_is_passed_over_keeps_its_turn() -> None:
    """The next one is served meanwhile, and it is first again once nobody skips it."""
    backlog = new()
    first, second = Job("a"), Job("b")
    backlog.push(first)
    backlog.push(second)
    assert backlog.pop({"a", "b"}) is None
    assert backlog.pop({"a"}) is second
    assert backlog.pop({"a"}) is None
    assert backlog.pop() is first


def test_work_not_done_is_given_back() -> None:
    """Jobs that ask for much and answer little get the turns of what they took."""
    backlog = new()
    for number in range(100):
        backlog.push(Job("asks", number, most_tokens=1_000))
        backlog.push(Job("says", number, most_tokens=10))
    turns: Counter[str] = Counter()
    for _ in range(100):
        job = backlog.pop()
        assert job is not None
        turns[job.tenant] += 1
        backlog.settle(job, 30.0)  # ten of the prompt and ten of the answer, at twice the price
    assert 49 <= turns["asks"] <= 51


def test_a_job_that_takes_more_than_expected_costs_its_tenant_turns() -> None:
    """What it goes on to cost counts while it runs, not only at its end."""
    backlog = new()
    for number in range(10):
        backlog.push(Job("long", number))
        backlog.push(Job("other", number))
    first = backlog.pop()
    assert first is not None
    backlog.settle(first, first.charged + 30)
    turns = [job.tenant for _ in range(6) if (job := backlog.pop())]
    assert turns == ["other", "other", "other", "other", "long", "other"]


def test_what_is_given_back_counts_at_once() -> None:
    """A tenant whose turn was far off is next, if its job has cost nothing in the end."""
    backlog = new()
    dear, cheap = Job("a", 1, prompt_tokens=100), Job("a", 2)
    for job in (dear, cheap, *(Job("b", number) for number in range(5))):
        backlog.push(job)
    assert backlog.pop() is dear
    assert backlog.pop().tenant == "b"  # type: ignore[union-attr] # it waits
    backlog.settle(dear, 0.0)
    assert backlog.pop() is cheap


def test_jobs_of_many_tenants_that_are_made_whole_together_find_room() -> None:
    """A tenant's part of the memory is a sixteenth: a hundred of them took six times all of it."""

    def put_away(job: Job) -> None:
        job.shelved, job.size = True, 100

    backlog = Backlog[Job](max_jobs_per_source=100_000, max_bytes=100_000, shelve=put_away)
    for number in range(500):
        backlog.push(Job(f"t{number % 100}", number, size=1_000, whole_size=1_000))
    served = 0
    for _ in range(2_000):
        while backlog.pop() is not None:
            served += 1
        for job in (asked := backlog.to_fetch()):
            job.shelved, job.size = False, job.whole_size
            backlog.resized(job)
        assert backlog.bytes <= 150_000
    assert not asked
    assert served == 500


def test_a_weight_that_changes_while_a_job_runs_gives_no_credit() -> None:
    """What was charged at the old weight is given back at that: at the new one it was a fortune."""
    weights = {"a": 1.0, "b": 1.0}
    counters = Counters(weights.__getitem__)
    backlog = Backlog[Job](max_jobs_per_source=1_000, max_bytes=1_000_000, counters=counters)
    backlog.push(Job("a", most_tokens=200))
    job = backlog.pop()
    assert job is not None
    weights["a"] = 0.01
    backlog.settle(job, 10)
    assert counters["a"] == 10 / 0.01
