"""The backlog: jobs read from the queue that wait for the engine, fair by tenant.

The waiting tenant that was given the least work is served next (`aril.worker.batching.counters`).
Within a tenant: higher ``priority`` first, then order of arrival.

Bounded by jobs of one source partition and by bytes over all. A full backlog drops nothing: it
says so, and the consumer pauses what it reads from. Long before, what a tenant has beyond its part
is put on a shelf (`aril.worker.batching.shelf`): so one tenant's flood is seen past by the others.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from aril.worker.batching.counters import Counters
from aril.worker.batching.tenant_queue import Queued, TenantQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable


class Waiting(Queued, Protocol):
    """What the backlog needs to know of a job."""

    @property
    def tenant(self) -> str:
        """Whose turn it uses."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of its prompt, about."""

    @property
    def most_tokens(self) -> int:
        """Tokens that its answer has at most."""

    charged: float
    """What its tenant was charged for it."""

    charge: float
    """The same, over its weight: what of its tenant's counter is this job's."""

    @property
    def source(self) -> Hashable:
        """The partition it was read from."""

    @property
    def size(self) -> int:
        """Bytes that it holds in memory."""


JobT = TypeVar("JobT", bound=Waiting)

TENANT_PART = 4  # a tenant may have one part of so many in memory
ALL_PART = 2  # all of them together
FETCHED_PART = 16  # what its next jobs may take that are made whole together


class Backlog(Generic[JobT]):
    """Fair queues of waiting jobs, one a tenant."""

    def __init__(
        self,
        *,
        max_jobs_per_source: int,
        max_bytes: int,
        counters: Counters | None = None,
        shelve: Callable[[JobT], None] | None = None,
    ) -> None:
        """Prepare; `shelve` makes a job lean, None: all are kept whole."""
        self._max_jobs = max_jobs_per_source
        self._max_bytes = max_bytes
        self._shelve = shelve
        self._queues: dict[str, TenantQueue[JobT]] = {}
        self._to_fetch: list[JobT] = []
        # One entry a waiting tenant counts, that of `_turn_of`; its counter may be above it by now.
        self._turns: list[tuple[float, int, str]] = []
        self._turn_of: dict[str, tuple[float, int, str]] = {}
        self._counters = counters or Counters()
        self._arrivals = itertools.count()
        self._waiting: set[int] = set()  # id() of the jobs that were not discarded
        self._jobs_of: Counter[Hashable] = Counter()
        self._priorities: dict[str, Counter[int]] = {}  # of waiting jobs, by tenant
        self._bytes_of: Counter[str] = Counter()  # by tenant
        self._sizes: dict[int, int] = {}  # by id() of a waiting job, as it was last counted
        self._bytes = 0
        # By id(): what jobs take more that are made whole before their turns, and those under way.
        self._fetched: dict[int, int] = {}
        self._fetched_bytes = 0
        self._coming: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def bytes(self) -> int:
        """Bytes held by the waiting jobs."""
        return self._bytes

    def full(self, source: Hashable) -> bool:
        """Return whether nothing more should be read from that partition for now."""
        return self._jobs_of[source] >= self._max_jobs or self._bytes >= self._max_bytes

    def push(self, job: JobT) -> None:
        """Add a job; it is taken even when full, since it was read already."""
        queue = self._queues.get(job.tenant)
        if queue is None:
            queue = self._queues[job.tenant] = TenantQueue(lambda each: id(each) in self._waiting)
            self._counters.arrive(job.tenant)
            self._wait_for_turn(job.tenant)
        queue.push(job, next(self._arrivals))
        self._waiting.add(id(job))
        self._jobs_of[job.source] += 1
        self._priorities.setdefault(job.tenant, Counter())[job.priority] += 1
        if self._shelve is not None and not job.shelved and self._is_beyond_its_part(job.tenant):
            self._shelve(job)
        self.resized(job)

    def _is_beyond_its_part(self, tenant: str) -> bool:
        own, limit = self._bytes_of[tenant], self._max_bytes
        even = own * ALL_PART * len(self._queues) >= limit  # who has less is held up by nobody
        return own * TENANT_PART >= limit or (self._bytes * ALL_PART >= limit and even)

    def resized(self, job: JobT) -> None:
        """Note what a job holds in memory now, if it waits here."""
        if id(job) in self._waiting:
            change = job.size - self._sizes.get(id(job), 0)
            self._sizes[id(job)] = job.size
            self._bytes += change
            self._bytes_of[job.tenant] += change
            if not job.shelved:
                self._coming.discard(id(job))

    def before(self, tenant: str, priority: int) -> int:
        """Return how many jobs of a tenant come before one that would come now."""
        waiting = self._priorities.get(tenant, Counter())
        return sum(jobs for each, jobs in waiting.items() if each >= priority)

    def to_fetch(self) -> list[JobT]:
        """Return the shelved jobs that are next, each once."""
        found, self._to_fetch = self._to_fetch, []
        return found

    def pop(self, skip: Collection[str] = ()) -> JobT | None:
        """Remove and return the job whose turn it is, or None when nothing waits.

        Tenants in `skip` keep their turns: the next one behind them is served.
        """
        skipped = []
        try:
            while self._turns:
                turn = heapq.heappop(self._turns)
                served, _, tenant = turn
                if self._turn_of.get(tenant) is not turn:
                    continue
                if served < self._counters[tenant]:
                    self._wait_for_turn(tenant)
                elif tenant in skip or not self._is_ready(tenant):
                    skipped.append(turn)
                elif (job := self._serve(turn)) is not None:
                    return job
            return None
        finally:
            for turn in skipped:
                heapq.heappush(self._turns, turn)

    def _is_ready(self, tenant: str) -> bool:
        """Look whether a tenant's next job is whole, and have those made whole that come behind."""
        queue = self._queues[tenant]
        most = self._max_bytes // ALL_PART  # of all tenants together, beside what is lean
        if self._fetched_bytes < most or not self._coming:  # beyond that one after the other
            room = min(self._max_bytes // FETCHED_PART, most // len(self._queues))
            for job in queue.to_fetch(room):
                self._fetched[id(job)] = job.whole_size - job.size
                self._fetched_bytes += job.whole_size - job.size
                self._coming.add(id(job))
                self._to_fetch.append(job)
        return queue.ready()

    def _serve(self, turn: tuple[float, int, str]) -> JobT | None:
        """Take the next job of the tenant whose turn it is; None if all of them were discarded."""
        served, _, tenant = turn
        queue = self._queues[tenant]
        job = queue.pop()
        if job is not None:
            self._counters.turn(served)
            self._charge(job)
            self._forget(job)
        if queue:
            self._wait_for_turn(tenant)
        else:
            self._retire(tenant)
        return job

    def take(self, job: JobT) -> bool:
        """Remove a job before its turn, at its tenant's cost; False if it does not wait here."""
        if not self.discard(job):
            return False
        self._charge(job)
        return True

    def settle(self, job: JobT, cost: float) -> None:
        """Let a job that was served have cost so much, be that more than was expected or less."""
        self._count(job, cost)
        turn = self._turn_of.get(job.tenant)
        if turn is not None and self._counters[job.tenant] < turn[0]:
            self._wait_for_turn(job.tenant)

    def discard(self, job: JobT) -> bool:
        """Forget a job that was cancelled; False if it does not wait here."""
        if id(job) not in self._waiting:
            return False
        self._forget(job)
        # The heap keeps a reference until the job's turn would have come: id() stays unique.
        return True

    def _charge(self, job: JobT) -> None:
        self._count(job, self._counters.expect(job.tenant, job.prompt_tokens, job.most_tokens))

    def _count(self, job: JobT, cost: float) -> None:
        # What is given back is what was taken: the weight may be another by now.
        job.charge = self._counters.charge(job.tenant, cost, job.charge)
        job.charged = cost

    def _wait_for_turn(self, tenant: str) -> None:
        turn = self._turn_of[tenant] = self._counters[tenant], next(self._arrivals), tenant
        heapq.heappush(self._turns, turn)

    def _retire(self, tenant: str) -> None:
        del self._queues[tenant], self._turn_of[tenant]
        if self._counters.many:
            self._counters.forget(self._queues.__contains__)

    def _forget(self, job: JobT) -> None:
        self._waiting.discard(id(job))
        size = self._sizes.pop(id(job))
        self._fetched_bytes -= self._fetched.pop(id(job), 0)
        self._coming.discard(id(job))
        self._bytes -= size
        self._bytes_of[job.tenant] -= size
        if not self._bytes_of[job.tenant]:
            del self._bytes_of[job.tenant]
        self._jobs_of[job.source] -= 1
        if not self._jobs_of[job.source]:
            del self._jobs_of[job.source]
        priorities = self._priorities[job.tenant]
        priorities[job.priority] -= 1
        if not priorities[job.priority]:
            del priorities[job.priority]
            if not priorities:
                del self._priorities[job.tenant]
