"""A simulated fleet: GPUs that decode rows of jobs, and the events of a day.

Discrete events, no I/O, no real clock; the same seed gives the same day. A GPU decodes up to `rows`
jobs at a time, a token each per step, however many they are; what its KV cache cannot hold is taken
from the newest job, which is computed again later. An adapter that is on none of a GPU's slots is
loaded first. Who decides which GPU gets a job is in `benchmarks.fleet_rules`.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aril.worker.job import Partition

STEP_SECONDS: Final = 0.05
CHUNK_TOKENS: Final = 512  # of a prompt, a step
LOAD_SECONDS: Final = 0.5  # of an adapter, from disk to its slot
TICK_SECONDS: Final = 1.0  # as `aril.worker.placement.consolidation` samples


@dataclass(slots=True, eq=False)
class Job:
    """One job and how far it is. Times are seconds of the simulated day."""

    came: float
    source: Partition
    adapter: str
    prompt: int  # tokens
    tokens: int  # to be made
    made: int = 0  # before the present run
    begun: float = 0.0  # when the present run makes its first token, less a step
    run: int = 0  # which one it is: events of an earlier one are stale
    first_token: float | None = None  # seconds after it came

    def made_by(self, now: float) -> float:
        """Tokens that there are at a time."""
        return self.made + max(0.0, now - self.begun) / STEP_SECONDS


@dataclass(frozen=True, slots=True)
class Size:
    """What one GPU holds."""

    rows: int = 16
    slots: int = 16
    kv_tokens: int = 12_288


class Gpu:
    """One worker's engine."""

    def __init__(self, name: str, size: Size) -> None:
        self.name = name
        self.size = size
        self.running: list[Job] = []  # the newest last
        self.waiting: list[tuple[float, int, Job]] = []  # a heap: first come, first served
        self.loads = 0
        self.slots: OrderedDict[str, None] = OrderedDict()  # the one used last at the end
        self.version = 0  # of what runs

    def kv_used(self, now: float) -> float:
        """Tokens in the cache."""
        return sum(each.prompt + each.made_by(now) for each in self.running)

    def has_room(self, job: Job, now: float) -> bool:
        """Whether a row and its keys and values fit."""
        if len(self.running) >= self.size.rows:
            return False
        return self.kv_used(now) + job.prompt + job.made < self.size.kv_tokens

    def fetch(self, adapter: str) -> float:
        """Bring an adapter onto a slot; return the seconds that it takes."""
        known = adapter in self.slots
        self.slots[adapter] = None
        self.slots.move_to_end(adapter)
        if len(self.slots) > self.size.slots:
            used = {each.adapter for each in self.running} | {adapter}
            del self.slots[next(each for each in self.slots if each not in used)]
        self.loads += not known
        return 0.0 if known else LOAD_SECONDS


class Rule(Protocol):
    """Who decides where jobs go."""

    def arrive(self, fleet: Fleet, job: Job) -> None:
        """Bring a job that is new, or was taken from a GPU, to where it waits."""

    def freed(self, fleet: Fleet, gpu: Gpu) -> None:
        """Use a row that fell free."""

    def tick(self, fleet: Fleet) -> int:
        """Look around once a second; return how many GPUs are in use."""


@dataclass
class Outcome:
    """What a day brought."""

    gpu_seconds: float = 0.0
    first_tokens: list[float] = field(default_factory=list)
    adapter_loads: int = 0
    rebalances: int = 0
    handed_over: int = 0  # streams that went on elsewhere
    evicted: int = 0  # for want of room in a KV cache


class Fleet:
    """The GPUs and the events of a day."""

    def __init__(self, gpus: int, size: Size, rule: Rule) -> None:
        self.gpus = [Gpu(f"gpu-{number:02}", size) for number in range(gpus)]
        self.now = 0.0
        self.outcome = Outcome()
        self._rule = rule
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._events, (when, next(self._order), what))

    def run(self, jobs: Iterable[Job], seconds: float) -> Outcome:
        """Serve a day's jobs, in the order they come, and then those that are left."""
        coming = iter(jobs)
        left = 0

        def next_job() -> None:
            nonlocal left
            if (job := next(coming, None)) is not None:
                left += 1
                self.at(job.came, lambda: come(job))

        def come(job: Job) -> None:
            self._rule.arrive(self, job)
            next_job()

        def tick() -> None:
            self.outcome.gpu_seconds += self._rule.tick(self) * TICK_SECONDS
            if self.now < seconds:
                self.at(self.now + TICK_SECONDS, tick)

        next_job()
        self.at(0.0, tick)
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.outcome.adapter_loads = sum(gpu.loads for gpu in self.gpus)
        if len(self.outcome.first_tokens) != left:
            raise RuntimeError(f"{left} jobs came, {len(self.outcome.first_tokens)} were served")
        return self.outcome

    def wait(self, gpu: Gpu, job: Job) -> None:
        """Let a job wait for a GPU."""
        heapq.heappush(gpu.waiting, (job.came, next(self._order), job))
        self.fill(gpu)

    def fill(self, gpu: Gpu) -> None:
        """Begin what waits, first come first served, while there is room."""
        while gpu.waiting and gpu.has_room(gpu.waiting[0][2], self.now):
            self.begin(gpu, heapq.heappop(gpu.waiting)[2])

    def begin(self, gpu: Gpu, job: Job) -> None:
        """Load the adapter, compute the prompt and what was made, go on behind it."""
        steps = math.ceil((job.prompt + job.made) / CHUNK_TOKENS)
        first = self.now + gpu.fetch(job.adapter) + steps * STEP_SECONDS
        job.begun = first - STEP_SECONDS  # the prompt's last step brings a token
        job.run += 1
        run = job.run
        if job.first_token is None:
            job.first_token = first - job.came
            self.outcome.first_tokens.append(job.first_token)
        gpu.running.append(job)
        ends = job.begun + (job.tokens - job.made) * STEP_SECONDS
        self.at(ends, lambda: self._end(gpu, job, run))
        self._watch_cache(gpu)

    def take(self, gpu: Gpu, job: Job) -> None:
        """Take a running job from its GPU; what it made stays made."""
        gpu.running.remove(job)
        job.made = min(job.tokens - 1, int(job.made_by(self.now)))
        job.run += 1
        self._watch_cache(gpu)

    def _end(self, gpu: Gpu, job: Job, run: int) -> None:
        if job.run == run:
            gpu.running.remove(job)
            self._watch_cache(gpu)
            self._rule.freed(self, gpu)

    def _watch_cache(self, gpu: Gpu) -> None:
        """See when the KV cache will be full, unless a job ends before."""
        gpu.version += 1
        if not gpu.running:
            return
        version = gpu.version
        free = gpu.size.kv_tokens - gpu.kv_used(self.now)
        full = self.now + max(0.0, free) * STEP_SECONDS / len(gpu.running)
        ends = min(each.begun + (each.tokens - each.made) * STEP_SECONDS for each in gpu.running)
        if full < ends:
            self.at(full + STEP_SECONDS / 2, lambda: self._cache_full(gpu, version))

    def _cache_full(self, gpu: Gpu, version: int) -> None:
        if gpu.version != version:
            return
        if gpu.kv_used(self.now) < gpu.size.kv_tokens:  # some had not begun to decode
            self._watch_cache(gpu)
            return
        newest = max(gpu.running, key=lambda each: each.came)
        self.take(gpu, newest)
        self.outcome.evicted += 1
        self._rule.arrive(self, newest)
