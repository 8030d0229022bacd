"""From the backlog to the engine: whose turn it is, prompt and adapter at hand, the window, a row.

No more jobs are prepared ahead than one batch holds, so that the backlog, and with it fairness
between tenants, decides as late as it can.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from schemas import ErrorCode, JobError
from worker.batching.backlog import Backlog
from worker.batching.turns import Turns
from worker.batching.window import BatchLimits, Window
from worker.engine.request import GenerationRequest
from worker.job import Stage, seed_of
from worker.observe.logs import get_logger
from worker.takeover.claims import Owned
from worker.takeover.rule import STRIKES_ALONE_TO_CONVICT, STRIKES_TO_RUN_ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from schemas import Job
    from worker.adapters import AdapterWeights
    from worker.job import Entry, Partition
    from worker.observe.metrics import Metrics
    from worker.settings import WorkerSettings
    from worker.takeover.claims import Claims

log = get_logger(__name__)


class EngineHandle(Protocol):
    """An engine that runs apart from the event loop."""

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Add requests at the next step boundary."""

    def cancel(self, key: int) -> None:
        """Stop one at the next step boundary; unknown keys are ignored."""


class PromptEncoder(Protocol):
    """What makes prompt tokens of a job."""

    def encode(self, job: Job) -> tuple[int, ...]:
        """Return them. Raises JobError."""


class AdapterSource(Protocol):
    """Where a tenant's adapters come from."""

    async def get(self, tenant: str, name: str) -> AdapterWeights:
        """Return the weights. Raises JobError."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What becomes of a job that does not enter the engine now."""

    refuse: Callable[[Entry, JobError], None]  # it ends in an error
    answered: Callable[[Entry], None]  # an earlier owner has ended it
    run_alone: Callable[[Entry], None]  # it has to wait for an empty engine


class Dispatcher:
    """Feeds one engine. Everything but tokenising happens on the event loop."""

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        prompts: PromptEncoder,
        adapters: AdapterSource | None,
        engine: EngineHandle,
        metrics: Metrics,
        claims: Claims,
        ends: Ends,
    ) -> None:
        self._max_rows = settings.max_rows
        # Submitted beyond the rows, so that a row that falls free is taken in the same step.
        self._ahead = max(1, settings.max_rows // 4)
        self._prompts = prompts
        self._adapters = adapters
        self._engine = engine
        self._metrics = metrics
        self._claims = claims
        self._ends = ends
        self._backlog: Backlog[Entry] = Backlog(
            max_jobs_per_source=settings.lookahead, max_bytes=settings.lookahead_bytes
        )
        limits = BatchLimits(settings.max_rows, settings.max_step_tokens, settings.slots)
        self._window: Window[Entry] = Window(seconds=settings.window_ms / 1_000, limits=limits)
        self._running: dict[int, Entry] = {}
        self._turns = Turns(self._backlog)
        self._preparing: set[asyncio.Task[None]] = set()
        # One thread: tokenising keeps the order of the jobs, and leaves the cores to the engine.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        self._wake = asyncio.Event()
        self._closed = False

    @property
    def running(self) -> int:
        """Jobs in the engine."""
        return len(self._running)

    @property
    def running_adapters(self) -> list[tuple[Partition, str]]:
        """Partition and adapter of each job in the engine that has one."""
        return [
            (each.source, each.adapter_digest)
            for each in self._running.values()
            if each.adapter_digest is not None
        ]

    def find(self, key: int) -> Entry | None:
        """Return the running job of that key."""
        return self._running.get(key)

    def is_full(self, source: Partition) -> bool:
        """Tell whether reading a partition should rest for now."""
        return self._backlog.full(source)

    def add(self, entry: Entry) -> None:
        """Let a job wait for its turn."""
        entry.stage = Stage.WAITING
        self._turns.add(entry)
        if not (entry.owned or entry.alone):
            self._claims.expect(entry)
        self._wake.set()

    def hurry(self, entry: Entry) -> None:
        """Serve a waiting job before its turn: it holds up its partition."""
        if self._turns.hurry(entry):
            self._wake.set()

    def withdraw(self, entry: Entry) -> None:
        """Take a job out, wherever it is."""
        self._turns.over(entry)
        if entry.stage is Stage.WAITING:
            self._turns.discard(entry)
            if entry.dropped:  # any other is ended, and has to be taken over for that
                self._claims.forget(entry)
        elif entry.stage is Stage.GATHERING:
            self._window.discard(entry)
        elif entry.stage is Stage.RUNNING:
            del self._running[entry.key]
            self._engine.cancel(entry.key)
        entry.stage = Stage.ENDED
        entry.weights = None
        self._wake.set()

    def ended(self, entry: Entry) -> None:
        """Note that the engine is through with a job."""
        self._running.pop(entry.key, None)
        entry.stage = Stage.ENDED
        self._turns.over(entry)
        self._wake.set()

    def close(self) -> None:
        """Let nothing more into the engine; what runs goes on."""
        self._closed = True
        self._tokenizing.shutdown(wait=False, cancel_futures=True)

    async def run(self) -> None:
        """Move jobs on whenever something changed, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._closed:
                continue
            self._prepare_next()
            self._submit(loop.time())
            closes_at = self._window.closes_at()
            if closes_at is not None and not self._running:
                loop.call_at(closes_at, self._wake.set)
            self._metrics.backlog_jobs.set(len(self._backlog))
            self._metrics.backlog_bytes.set(self._backlog.bytes)
            self._metrics.running_jobs.set(len(self._running))

    def _prepare_next(self) -> None:
        while len(self._preparing) + len(self._window) < self._max_rows:
            idle = not (self._running or self._preparing or len(self._window))
            entry = self._turns.next(idle=idle)
            if entry is None:
                return
            self._start_preparing(entry)

    def _start_preparing(self, entry: Entry) -> None:
        entry.stage = Stage.PREPARING
        task = asyncio.create_task(self._prepare(entry))
        self._preparing.add(task)
        task.add_done_callback(self._prepared)

    def _prepared(self, task: asyncio.Task[None]) -> None:
        self._preparing.discard(task)
        self._wake.set()

    async def _prepare(self, entry: Entry) -> None:
        job = entry.job
        assert job is not None, "a refused record is never dispatched"  # noqa: S101 - ours
        if not await self._take_over(entry):
            return
        try:
            weights = await self._adapter(job)
            loop = asyncio.get_running_loop()
            ids = await loop.run_in_executor(self._tokenizing, self._prompts.encode, job)
        except JobError as error:
            refusal = error
        except Exception:
            if self._closed:
                return
            log.exception("prepare_failed", job=entry.job_id, tenant=entry.tenant)
            refusal = JobError(ErrorCode.INTERNAL, "the job could not be prepared")
        else:
            if entry.stage is Stage.PREPARING:
                self._gather(entry, ids, weights)
            return
        if entry.stage is Stage.PREPARING:
            self._refuse(entry, refusal)

    def _refuse(self, entry: Entry, error: JobError) -> None:
        self._turns.over(entry)
        self._ends.refuse(entry, error)

    async def _take_over(self, entry: Entry) -> bool:
        """Make the job ours; False if it does not go on from here."""
        if entry.owned:
            return True
        owned = await self._claims.own(entry)
        if entry.stage is not Stage.PREPARING:  # ended meanwhile, by whoever ended it
            return False
        if owned is Owned.ANSWERED:
            self._turns.over(entry)
            self._ends.answered(entry)
        elif owned is Owned.OURS and entry.strikes_alone >= STRIKES_ALONE_TO_CONVICT:
            self._refuse(entry, crash_loop(entry.strikes_alone))
        elif owned is Owned.OURS and entry.strikes >= STRIKES_TO_RUN_ALONE and not entry.alone:
            log.warning("job_suspected", job=entry.job_id, strikes=entry.strikes)
            self._ends.run_alone(entry)
        else:
            return owned is Owned.OURS
        return False

    async def _adapter(self, job: Job) -> AdapterWeights | None:
        if job.adapter is None:
            return None
        if self._adapters is None:
            raise JobError(ErrorCode.UNKNOWN_ADAPTER, "adapter: this service has none")
        return await self._adapters.get(job.tenant, job.adapter)

    def _gather(self, entry: Entry, ids: tuple[int, ...], weights: AdapterWeights | None) -> None:
        entry.stage = Stage.GATHERING
        entry.prompt_ids = ids
        entry.weights = weights
        entry.adapter_digest = weights.digest if weights else None
        self._window.offer(
            entry,
            tenant=entry.tenant,
            adapter=entry.adapter_digest,
            tokens=len(ids),
            now=asyncio.get_running_loop().time(),
        )

    def _submit(self, now: float) -> None:
        room = self._max_rows + self._ahead - len(self._running)
        batch = self._window.take(now=now, busy=bool(self._running), rows=room)
        if batch:
            self._engine.submit([self._request(entry) for entry in batch])

    def _request(self, entry: Entry) -> GenerationRequest:
        job = entry.job
        assert job is not None, "a refused record is never dispatched"  # noqa: S101 - ours
        entry.seed = seed_of(entry)
        entry.stage = Stage.RUNNING
        entry.submitted_ms = time.time() * 1_000
        self._running[entry.key] = entry
        waited = max(0.0, entry.submitted_ms - entry.record.timestamp_ms)
        self._metrics.queue_seconds.observe(waited / 1_000)
        self._metrics.prompt_tokens.inc(len(entry.prompt_ids))
        return GenerationRequest(
            key=entry.key,
            prompt_ids=entry.prompt_ids,
            sampling=job.sampling,
            seed=entry.seed,
            adapter=entry.weights,
            resume_ids=entry.resume_ids,
        )


def crash_loop(strikes: int) -> JobError:
    """Make the error for a job that keeps killing its worker with nothing beside it."""
    return JobError(
        ErrorCode.CRASH_LOOP,
        f"{strikes} workers ended while they ran nothing but this job",
        limit=STRIKES_ALONE_TO_CONVICT,
        given=strikes,
    )
