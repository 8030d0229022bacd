"""The backlog: jobs read from the queue that wait for the engine, fair by tenant.

The waiting tenant that was given the least work is served next (`worker.batching.counters`).
Within a tenant: higher ``priority`` first, then order of arrival.

Bounded by jobs of one source partition and by bytes over all. A full backlog drops nothing: it
says so, and the consumer pauses what it reads from.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from worker.batching.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable


class Waiting(Protocol):
    """What the backlog needs to know of a job."""

    @property
    def tenant(self) -> str:
        """Whose turn it uses."""

    @property
    def priority(self) -> int:
        """Higher is served earlier, within the tenant."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of its prompt, about."""

    @property
    def most_tokens(self) -> int:
        """Tokens that its answer has at most."""

    charged: float
    """What its tenant was charged for it."""

    @property
    def source(self) -> Hashable:
        """The partition it was read from."""

    @property
    def size(self) -> int:
        """Bytes that it holds in memory."""


JobT = TypeVar("JobT", bound=Waiting)


class Backlog(Generic[JobT]):
    """Fair queues of waiting jobs, one a tenant."""

    def __init__(
        self, *, max_jobs_per_source: int, max_bytes: int, counters: Counters | None = None
    ) -> None:
        self._max_jobs = max_jobs_per_source
        self._max_bytes = max_bytes
        self._queues: dict[str, list[tuple[int, int, JobT]]] = {}
        # One entry a waiting tenant counts, that of `_turn_of`; its counter may be above it by now.
        self._turns: list[tuple[float, int, str]] = []
        self._turn_of: dict[str, tuple[float, int, str]] = {}
        self._counters = counters or Counters()
        self._arrivals = itertools.count()
        self._waiting: set[int] = set()  # id() of the jobs that were not discarded
        self._jobs_of: Counter[Hashable] = Counter()
        self._bytes = 0

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
        queue = self._queues.setdefault(job.tenant, [])
        if not queue:
            self._counters.arrive(job.tenant)
            self._wait_for_turn(job.tenant)
        heapq.heappush(queue, (-job.priority, next(self._arrivals), job))
        self._waiting.add(id(job))
        self._jobs_of[job.source] += 1
        self._bytes += job.size

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
                elif tenant in skip:
                    skipped.append(turn)
                elif (job := self._serve(turn)) is not None:
                    return job
            return None
        finally:
            for turn in skipped:
                heapq.heappush(self._turns, turn)

    def _serve(self, turn: tuple[float, int, str]) -> JobT | None:
        """Take the next job of the tenant whose turn it is; None if all of them were discarded."""
        served, _, tenant = turn
        queue = self._queues[tenant]
        job = self._first_alive(queue)
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
        self._counters.charge(job.tenant, cost - job.charged)
        job.charged = cost
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

    def _first_alive(self, queue: list[tuple[int, int, JobT]]) -> JobT | None:
        while queue:
            _, _, job = heapq.heappop(queue)
            if id(job) in self._waiting:
                return job
        return None

    def _charge(self, job: JobT) -> None:
        job.charged = self._counters.expect(job.tenant, job.prompt_tokens, job.most_tokens)
        self._counters.charge(job.tenant, job.charged)

    def _wait_for_turn(self, tenant: str) -> None:
        turn = self._turn_of[tenant] = self._counters[tenant], next(self._arrivals), tenant
        heapq.heappush(self._turns, turn)

    def _retire(self, tenant: str) -> None:
        del self._queues[tenant], self._turn_of[tenant]
        if self._counters.many(len(self._queues)):  # amortises the sweep
            self._counters.forget(self._queues.__contains__)

    def _forget(self, job: JobT) -> None:
        self._waiting.discard(id(job))
        self._bytes -= job.size
        self._jobs_of[job.source] -= 1
        if not self._jobs_of[job.source]:
            del self._jobs_of[job.source]
