"""From the backlog to the engine: whose turn it is, all that it needs at hand, the window, a row.

No more jobs are prepared ahead than one batch holds, so that the backlog, and with it fairness
between tenants, decides as late as it can. A job that is being claimed, or that has waited a moment
for its adapters, its constraint or its own template, holds no place of these: a slow reply log or
adapter store delays only those who need it. Both are bounded; once as many wait so as a batch
holds, their tenants are passed over. A suspect that waits so gives the engine back meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from schemas import Activation, ErrorCode, JobError
from worker.accounting import count_begun
from worker.batching.backlog import Backlog
from worker.batching.claims_in_flight import ClaimsInFlight
from worker.batching.preparation import Preparation
from worker.batching.turns import Turns
from worker.batching.window import BatchLimits, Window
from worker.engine.mixture import members_of
from worker.engine.request import GenerationRequest
from worker.job import seed_of
from worker.observe.logs import get_logger
from worker.stages import Event, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from schemas import Job
    from worker.batching.asked_adapters import AdapterSource
    from worker.batching.preparation import Needs, PromptEncoder, Renderer
    from worker.constraints.cache import Compiler
    from worker.job import Entry, Partition
    from worker.observe.metrics import Metrics
    from worker.settings import WorkerSettings

log = get_logger(__name__)

CHOICES = 256  # at once
# From then on a fetch is slow: one from the host cache takes a thread and a look at the folder.
SLOW_FETCH_SECONDS = 0.05
# Of a suspect's: not all that it waited for lasts until its next turn (a rendered conversation).
PATIENCE_GROWTH = 4
# Batches that may wait for a slow store, one job a tenant beyond the first: bounds memory.
SLOW_BATCHES = 8
_PREPARED_IN = frozenset({Stage.PREPARING, Stage.FETCHING})


class EngineHandle(Protocol):
    """An engine that runs apart from the event loop."""

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Add requests at the next step boundary."""

    def cancel(self, key: int) -> None:
        """Stop one at the next step boundary; unknown keys are ignored."""

    @property
    def lost(self) -> bool:
        """Whether it has failed, or hangs: no step of it will end."""


class Dispatcher:
    """Feeds one engine. Everything but tokenising happens on the event loop."""

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        prompts: PromptEncoder,
        adapters: AdapterSource | None,
        constraints: Compiler | None,
        templates: Renderer | None,
        engine: EngineHandle,
        metrics: Metrics,
        reachable: Callable[[Entry], bool],
        happened: Callable[[Entry, Event], None],
    ) -> None:
        """Prepare. `reachable` tells whether a job's answer can be written at present."""
        self._max_rows = settings.max_rows
        self._salt_of = settings.prefix_salt
        # Submitted beyond the rows, so that a row that falls free is taken in the same step.
        self._ahead = max(1, settings.max_rows // 4)
        self._preparation = Preparation(
            prompts=prompts,
            adapters=adapters,
            templates=templates,
            constraints=constraints,
            slots=settings.slots,
            metrics=metrics,
        )
        self._engine = engine
        self._metrics = metrics
        self._reachable = reachable
        self._happened = happened
        self._backlog: Backlog[Entry] = Backlog(
            max_jobs_per_source=settings.lookahead, max_bytes=settings.lookahead_bytes
        )
        limits = BatchLimits(settings.max_rows, settings.max_step_tokens, settings.slots)
        self._window: Window[Entry] = Window(seconds=settings.window_ms / 1_000, limits=limits)
        self._running: dict[int, Entry] = {}
        self._wake = asyncio.Event()
        self._turns = Turns(self._backlog)
        # They hold no place: a slow reply log stops nobody.
        self._claiming = ClaimsInFlight(settings.max_rows, changed=self._wake.set)
        self._chosen: set[Entry] = set()  # being prepared, until they are in the window
        # Of these: those whose adapter or constraint takes a while.
        self._slow: set[Entry] = set()
        self._behind: list[Entry] = []  # prepared while a suspect has the engine
        self._abandoned: set[Entry] = set()  # ended; their preparing goes on in its place
        self._preparing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def running(self) -> int:
        """Jobs in the engine."""
        return len(self._running)

    @property
    def running_adapters(self) -> list[tuple[Partition, str]]:
        """Partition and adapter of each job in the engine that has one; each of a mixture's."""
        return [
            (each.source, adapter.digest)
            for each in self._running.values()
            for adapter in members_of(each.adapter)
        ]

    def find(self, key: int) -> Entry | None:
        """Return the running job of that key."""
        return self._running.get(key)

    def is_full(self, source: Partition) -> bool:
        """Tell whether reading a partition should rest for now."""
        return self._backlog.full(source)

    def add(self, entry: Entry) -> None:
        """Let a job wait for its turn."""
        self._turns.add(entry)
        self._wake.set()

    def add_first(self, entry: Entry) -> None:
        """Let a job that was taken over be the next: its turn had come."""
        self._claiming.discard(entry)
        self._turns.add_first(entry)
        self._wake.set()

    def hurry(self, entry: Entry) -> None:
        """Serve a waiting job before its turn: it holds up its partition."""
        if self._turns.hurry(entry):
            self._wake.set()

    def prepare(self, entry: Entry) -> None:
        """Tokenise a job's prompt and fetch its adapter."""
        task = asyncio.create_task(self._hold_place(entry))
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    def gather(self, entry: Entry) -> None:
        """Offer a job that is prepared to the window, behind a suspect that has the engine."""
        self._chosen.discard(entry)
        if self._turns.alone in {None, entry}:
            self._offer(entry)
        else:
            self._behind.append(entry)

    def _offer(self, entry: Entry) -> None:
        self._window.offer(
            entry,
            tenant=entry.tenant,
            adapters={adapter.digest for adapter in members_of(entry.adapter)},
            tokens=len(entry.prompt_ids),
            now=asyncio.get_running_loop().time(),
        )
        self._wake.set()

    def ended(self, key: int) -> None:
        """Note that the engine is through with a job: there is nothing to cancel."""
        del self._running[key]

    def leave(self, entry: Entry) -> None:
        """Take a job out, wherever it is."""
        if self._running.pop(entry.key, None) is not None:
            self._engine.cancel(entry.key)
        elif entry in self._chosen:
            self._chosen.discard(entry)
            self._abandoned.add(entry)
        elif entry in self._behind:
            self._behind.remove(entry)
        elif not self._claiming.discard(entry) and not self._window.discard(entry):
            self._turns.discard(entry)
        self._turns.over(entry)
        entry.adapter = entry.constraint = None
        self._wake.set()

    def close(self) -> None:
        """Let nothing more into the engine; what runs goes on."""
        self._closed = True
        self._preparation.close()

    async def run(self) -> None:
        """Move jobs on whenever something changed, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._closed:
                continue
            self._choose()
            self._submit(loop.time())
            closes_at = self._window.closes_at()
            if closes_at is not None and not self._running:
                loop.call_at(closes_at, self._wake.set)
            self._metrics.backlog_jobs.set(len(self._backlog))
            self._metrics.backlog_bytes.set(self._backlog.bytes)
            self._metrics.running_jobs.set(len(self._running))

    def _choose(self) -> None:
        if self._turns.alone is None:
            behind, self._behind = self._behind, []
            for each in behind:
                self._offer(each)
        for _ in range(CHOICES):
            if not self._has_place() or (self._claiming.full and not self._turns.first):
                return
            suspect = self._turns.suspect
            if suspect is not None and not self._reachable(suspect):
                self._turns.discard(suspect)  # before the engine is emptied for it
                self._happened(suspect, Event.UNREACHABLE)
                continue
            # What waits for a slow store comes behind a suspect, should it come meanwhile.
            coming = (self._chosen | self._abandoned) - self._slow
            idle = not (self._running or self._claiming.waited_for or coming or len(self._window))
            skip = self._claiming.crowding
            if len(self._slow) >= self._max_rows:
                skip = skip | {each.tenant for each in self._slow}
            entry = self._turns.next(idle=idle, skip=skip)
            if entry is None:
                return
            if not self._reachable(entry):
                self._turns.over(entry)
                self._happened(entry, Event.UNREACHABLE)
            elif entry.owned:
                self._chosen.add(entry)
                self._happened(entry, Event.CHOSEN)
            else:
                self._claiming.add(entry)
                self._happened(entry, Event.DUE)
        self._wake.set()  # others first: so many at once are mostly parked

    def _has_place(self) -> bool:
        ready = len(self._chosen) + len(self._abandoned) - len(self._slow)
        ready += len(self._behind) + len(self._window)
        return ready < self._max_rows and len(self._slow) < SLOW_BATCHES * self._max_rows

    async def _hold_place(self, entry: Entry) -> None:
        try:
            await self._prepare(entry)
        finally:
            self._abandoned.discard(entry)
            self._wake.set()

    async def _prepare(self, entry: Entry) -> None:
        job = entry.job
        assert job is not None, "a refused record is never dispatched"  # noqa: S101 - ours
        try:
            needs = await self._fetch(entry, job)
            prompt, start = await self._preparation.encode(job, needs)
        except JobError as error:
            refusal = error
            if self._closed:  # by our leaving, perhaps; whoever has the job next sees for itself
                return
        except Exception:
            if self._closed:
                return
            log.exception("prepare_failed", job=entry.job_id, tenant=entry.tenant)
            refusal = JobError(ErrorCode.INTERNAL, "the job could not be prepared")
        else:
            if entry.stage in _PREPARED_IN:  # else it ended meanwhile
                entry.prompt_ids, entry.answer_tokens = prompt
                members = members_of(needs.adapter)
                entry.digests = tuple(member.digest for member in members)
                invoked = any(member.invocation for member in members)
                entry.activation = Activation(start) if invoked else None
                # An adapter that nothing in the prompt invokes needs no slot.
                entry.adapter = None if start is None else needs.adapter
                entry.constraint = needs.constraint
                self._happened(entry, Event.PREPARED)
            return
        if entry.stage in _PREPARED_IN:
            entry.error = refusal
            self._happened(entry, Event.FAILED)

    async def _fetch(self, entry: Entry, job: Job) -> Needs:
        """Await what a job needs; where that takes a while, the job holds up nobody meanwhile."""
        # A job that takes as long each time it is alone would never run: more patience each time.
        patience = SLOW_FETCH_SECONDS * PATIENCE_GROWTH**entry.delays
        timer = asyncio.get_running_loop().call_later(patience, self._is_slow, entry)
        try:
            return await self._preparation.fetch(job)
        finally:
            timer.cancel()
            self._slow.discard(entry)

    def _is_slow(self, entry: Entry) -> None:
        if entry in self._chosen or entry in self._abandoned:
            self._slow.add(entry)
            if entry is self._turns.alone:  # nobody else could run until its adapter is there
                self._turns.over(entry)
                entry.delays += 1
                self._happened(entry, Event.DELAYED)
            self._wake.set()

    def _submit(self, now: float) -> None:
        room = self._max_rows + self._ahead - len(self._running)
        batch = self._window.take(now=now, busy=bool(self._running), rows=room)
        if batch:
            self._engine.submit([self._request(entry) for entry in batch])
            if len(self._window):  # what did not fit into it is the next: nothing else may come
                self._wake.set()

    def _request(self, entry: Entry) -> GenerationRequest:
        job = entry.job
        assert job is not None, "a refused record is never dispatched"  # noqa: S101 - ours
        entry.seed = seed_of(entry)
        entry.submitted_ms = time.time() * 1_000
        self._running[entry.key] = entry
        self._happened(entry, Event.SUBMITTED)
        count_begun(entry, self._metrics)
        return GenerationRequest(
            key=entry.key,
            prompt_ids=entry.prompt_ids,
            sampling=job.sampling.model_copy(update={"max_tokens": entry.answer_tokens}),
            seed=entry.seed,
            adapter=entry.adapter,
            adapter_scale=job.adapter_scale,
            active_from=(entry.activation and entry.activation.start) or 0,
            resume_ids=entry.resume_ids,
            constraint=entry.constraint,
            continues_text=job.messages is None or job.continue_final_message,
            salt=self._salt_of(entry.tenant),
        )
