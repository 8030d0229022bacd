"""A tenant's queue: its order is the same whether jobs were on the shelf or not."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from aril.worker.batching.tenant_queue import FETCHED_AT_ONCE, TenantQueue


@dataclass(eq=False)
class Job:
    """A job as the queue sees it."""

    number: int
    priority: int = 0
    shelved: bool = False
    whole_size: int = 10
    alive: bool = True


def new() -> TenantQueue[Job]:
    """Return an empty queue."""
    return TenantQueue(lambda job: job.alive)


def test_jobs_are_asked_for_before_their_turns_and_once() -> None:
    """A batch of them, and the next once half of that is served."""
    queue = new()
    for number in range(200):
        queue.push(Job(number, shelved=True), number)
    assert not queue.ready()
    asked = queue.to_fetch(10_000)
    assert [job.number for job in asked] == [*range(FETCHED_AT_ONCE)]
    assert queue.to_fetch(10_000) == []
    for job in asked:
        job.shelved = False
    for number in range(FETCHED_AT_ONCE // 2 + 1):
        assert queue.ready()
        served = queue.pop()
        assert served is not None
        assert served.number == number
    assert [job.number for job in queue.to_fetch(10_000)] == [*range(64, 128)]


def test_no_more_are_asked_for_than_there_is_room_for() -> None:
    """One that is larger by itself comes alone."""
    queue = new()
    for number in range(10):
        queue.push(Job(number, shelved=True, whole_size=40 if number else 900), number)
    assert len(queue.to_fetch(100)) == 1
    assert queue.pop() is not None
    assert len(queue.to_fetch(100)) == 2


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "pop", "fetch", "arrive", "drop"]),
        st.integers(-2, 2),
        st.booleans(),
        st.integers(0, 10),
    ),
    max_size=80,
)


def first_of(waiting: list[Job]) -> Job | None:
    """Return whose turn it is."""
    return min(waiting, key=lambda job: (-job.priority, job.number), default=None)


class Scene:
    """A queue beside the plain list of what waits in it."""

    def __init__(self) -> None:
        self.queue = new()
        self.waiting: list[Job] = []
        self.asked: list[Job] = []

    def push(self, number: int, priority: int, *, shelved: bool) -> None:
        """Let a job wait."""
        self.waiting.append(Job(number, priority=priority, shelved=shelved))
        self.queue.push(self.waiting[-1], number)

    def fetch(self) -> None:
        """Ask for what is next: each once, and nothing else."""
        found = self.queue.to_fetch(25)
        assert not set(found) & set(self.asked)
        assert all(job.shelved and job.alive for job in found)
        self.asked += found

    def pop(self) -> None:
        """Serve the next one, if it is whole."""
        first = first_of(self.waiting)
        assert self.queue.ready() == (first is None or not first.shelved)
        if self.queue.ready():
            assert self.queue.pop() is first
            self.waiting = [job for job in self.waiting if job is not first]


@given(STEPS)
def test_shelved_jobs_keep_their_places(steps: list[tuple[str, int, bool, int]]) -> None:
    """Whatever is fetched when: each pop that may be is of the least (priority, arrival)."""
    scene = Scene()
    for number, (step, priority, shelved, which) in enumerate(steps):
        if step == "push":
            scene.push(number, priority, shelved=shelved)
        elif step == "arrive" and scene.asked:
            scene.asked[which % len(scene.asked)].shelved = False
        elif step == "drop" and scene.waiting:
            scene.waiting.pop(which % len(scene.waiting)).alive = False
        elif step == "fetch":
            scene.fetch()
        elif step == "pop":
            scene.pop()
    while scene.waiting:  # all of them come in the end
        before = len(scene.waiting)
        scene.fetch()
        for job in scene.asked:
            job.shelved = False
        scene.pop()
        assert len(scene.waiting) < before
    assert scene.queue.pop() is None


def test_one_of_a_higher_priority_is_fetched_though_many_are_ahead() -> None:
    """It is next, and they were not asked for less: each waited for the other for good."""
    queue = new()
    for number in range(100):
        queue.push(Job(number, shelved=True), number)
    first = queue.to_fetch(10_000)
    assert len(first) == FETCHED_AT_ONCE
    for job in first:
        job.shelved = False
    urgent = Job(100, priority=1, shelved=True)
    queue.push(urgent, 100)
    assert not queue.ready()
    assert queue.to_fetch(10_000) == [urgent]
    assert queue.to_fetch(10_000) == []
    urgent.shelved = False
    assert queue.pop() is urgent
    assert queue.pop() is first[0]
