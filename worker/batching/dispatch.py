"""From the backlog to the engine: whose turn it is, all that it needs at hand, the window, a row.

No more jobs are prepared ahead than one batch holds, so that the backlog, and with it fairness
between tenants, decides as late as it can; but a tenant that has none of these may have one beyond
them, so that it can be served whoever else has filled them. A job that is being claimed, or that
has waited a moment for its adapters, its constraint or its own template, holds no place of these: a
slow reply log or adapter store delays only those who need it. Both are bounded; once as many wait
so as a batch holds, their tenants are passed over. A suspect that waits so gives the engine back
meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aril.schemas.limits import MAX_ABSOLUTE_PRIORITY
from aril.worker.accounting import count_begun
from aril.worker.batching.backlog import Backlog
from aril.worker.batching.billing import Billing
from aril.worker.batching.claims_in_flight import ClaimsInFlight
from aril.worker.batching.counters import Counters
from aril.worker.batching.feed import EngineHandle, Feed
from aril.worker.batching.places import Places
from aril.worker.batching.preparation import Preparation
from aril.worker.batching.queue_times import QueueTimes
from aril.worker.batching.requests import request_of
from aril.worker.batching.shelf import Shelf, put_away
from aril.worker.batching.turns import Turns
from aril.worker.engine.mixture import members_of
from aril.worker.job import seed_of
from aril.worker.stages import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aril.schemas import JobError
    from aril.worker.batching.asked_adapters import AdapterSource
    from aril.worker.batching.preparation import PromptEncoder, Renderer
    from aril.worker.constraints.cache import Compiler
    from aril.worker.engine.request import GenerationRequest
    from aril.worker.intake.quotas import Quotas
    from aril.worker.intake.tenant_limits import TenantLimits
    from aril.worker.job import Entry, Partition
    from aril.worker.observe.metrics import Metrics
    from aril.worker.settings import WorkerSettings
    from aril.worker.takeover.readback import LogReader


CHOICES = 256  # at once
# Batches that may be prepared beyond the first, one job a tenant: bounds memory.
OTHER_BATCHES = 4


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
        jobs_reader: LogReader | None,
        limits: TenantLimits,
        quotas: Quotas,
        kv_tokens: int | None = None,
        take_loads: Callable[[str], int] = lambda _: 0,
    ) -> None:
        """Prepare. `reachable` tells whether a job's answer can be written at present.

        `jobs_reader` reads jobs again that were let go of; None: none are.
        `kv_tokens` is what the engine's cache holds; `take_loads` tells how many adapters were read
        for a tenant since it was last asked.
        """
        self._max_rows = settings.max_rows
        self._salt_of = settings.prefix_salt
        self._quotas = quotas
        counters = Counters(limits.weight)
        preparation = Preparation(
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
            max_jobs_per_source=settings.lookahead,
            max_bytes=settings.lookahead_bytes,
            counters=counters,
            shelve=None if jobs_reader is None else put_away,
        )
        self._shelf = Shelf(jobs_reader, whole=self._is_whole, gone=self._is_gone)
        self._billing = Billing(counters, self._backlog, quotas, take_loads)
        self._times = QueueTimes()
        self._feed = Feed(
            settings=settings,
            kv_tokens=kv_tokens,
            engine=engine,
            limits=limits,
            request=self._request,
            displaced=self._displaced,
        )
        self._wake = asyncio.Event()
        self._turns = Turns(self._backlog)
        # They hold no place: a slow reply log stops nobody.
        self._claiming = ClaimsInFlight(settings.max_rows, changed=self._wake.set)
        self._places = Places(
            preparation,
            settings.max_rows,
            happened=happened,
            fetched=self._billing.fetched,
            slow=self._is_slow,
            changed=self._wake.set,
        )
        self._behind: list[Entry] = []  # prepared while a suspect has the engine
        self._held_back: set[str] = set()  # tenants that are over a rate
        self._closed = self._held = False

    @property
    def running(self) -> int:
        """Jobs in the engine."""
        return len(self._feed)

    @property
    def running_adapters(self) -> list[tuple[Partition, str]]:
        """Partition and adapter of each job in the engine that has one; each of a mixture's."""
        return [
            (each.source, adapter.digest)
            for each in self._feed
            for adapter in members_of(each.adapter)
        ]

    @property
    def ahead(self) -> list[Entry]:
        """Jobs in the engine that wait there for a row."""
        return self._feed.ahead

    def find(self, key: int) -> Entry | None:
        """Return the running job of that key."""
        return self._feed.find(key)

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
        if entry.shelved:
            self.when_whole(entry, self._wake.set)
        elif self._turns.hurry(entry):
            self._wake.set()

    def seconds_until_turn(self, entry: Entry) -> float | None:
        """Return about how long a job would wait that came now; None: that is not known."""
        before = self._backlog.before(entry.tenant, entry.priority)
        return self._times.until(entry.tenant, before)

    def when_whole(self, entry: Entry, then: Callable[[], None]) -> None:
        """Call back once a job has all that it says again, or that is gone for good."""
        self._shelf.when_whole(entry, then)

    def _is_whole(self, entry: Entry) -> None:
        self._metrics.read_again.inc()
        self._backlog.resized(entry)
        self._wake.set()

    def _is_gone(self, entry: Entry, error: JobError) -> None:
        if not entry.ending:
            entry.error = error
            self._happened(entry, Event.FAILED)

    def prepare(self, entry: Entry) -> None:
        """Tokenise a job's prompt and fetch its adapter."""
        self._places.prepare(entry)

    def _is_slow(self, entry: Entry) -> None:
        """Have a suspect give the engine back: nobody else could run until its adapter is there."""
        if entry is self._turns.alone:
            self._turns.over(entry)
            entry.delays += 1
            self._happened(entry, Event.DELAYED)

    def gather(self, entry: Entry) -> None:
        """Offer a job that is prepared to the window, behind a suspect that has the engine."""
        self._places.chosen.discard(entry)
        if self._turns.alone in {None, entry}:
            self._offer(entry)
        else:
            self._behind.append(entry)

    def _offer(self, entry: Entry) -> None:
        self._feed.offer(entry)
        self._wake.set()

    def brought(self, entry: Entry, ids: Sequence[int]) -> None:
        """Note what a step brought of a running job: its tenant pays for it."""
        entry.brought += ids
        self._billing.brought(entry, ids)

    def tick(self) -> None:
        """Look whether tenants may start jobs again that had to wait for that."""
        self._quotas.look(time.monotonic())
        held_back = set(self._quotas.held_back)
        if held_back != self._held_back:
            self._wake.set()
        self._held_back = held_back

    def ended(self, entry: Entry) -> None:
        """Note that the engine is through with a job: there is nothing to cancel."""
        self._feed.ended(entry.key)
        self._billing.answered(entry)

    def pull_back(self, entry: Entry, key: int) -> None:
        """Take a job out of the engine that will go on under another key, behind what it brought.

        Outputs that are under way still have the old one: nobody takes them, and they come again.
        """
        self._feed.stop(entry)
        entry.key = key
        entry.resume_ids += tuple(entry.brought)
        entry.brought.clear()

    def _displaced(self, entry: Entry, had_row: bool) -> None:
        self._metrics.displaced.inc(had_row)
        self._happened(entry, Event.DISPLACED)

    def leave(self, entry: Entry) -> None:
        """Take a job out, wherever it is."""
        if entry in self._behind:
            self._behind.remove(entry)
        elif not (
            self._feed.stop(entry)
            or self._places.leave(entry)
            or self._claiming.discard(entry)
            or self._feed.discard(entry)
        ):
            self._turns.discard(entry)
        self._turns.over(entry)
        self._billing.settle(entry)
        entry.adapter = entry.constraint = None
        self._wake.set()

    def hold(self, *, on: bool) -> None:
        """Choose no job for now, or go on: whose they are is being settled."""
        self._held = on
        self._wake.set()

    def close(self) -> None:
        """Let nothing more into the engine; what runs goes on."""
        self._closed = True
        self._places.close()

    async def stop(self) -> None:
        """Fetch nothing any more."""
        await self._shelf.stop()

    async def run(self) -> None:
        """Move jobs on whenever something changed, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(0)  # `wait` does not give way while it is set
            if self._closed:
                continue
            if not self._held:
                self._choose()
            self._shelf.fetch([*self._turns.to_fetch(), *self._backlog.to_fetch()])
            if self._feed.submit(loop.time()):
                self._wake.set()  # there is more in the window, or there are places in it again
            closes_at = self._feed.closes_at()
            if closes_at is not None:
                loop.call_at(closes_at, self._wake.set)
            self._metrics.backlog_jobs.set(len(self._backlog))
            self._metrics.backlog_bytes.set(self._backlog.bytes)
            self._metrics.running_jobs.set(len(self._feed))

    def _choose(self) -> None:
        if self._turns.alone is None:
            behind, self._behind = self._behind, []
            for each in behind:
                self._offer(each)
        held_up = self._feed.held_up()
        self._quotas.look(time.monotonic())
        for _ in range(CHOICES):
            skip = self._without_place()
            if skip is None or (self._claiming.full and not self._turns.first):
                return
            suspect = self._turns.suspect
            if suspect is not None and not self._reachable(suspect):
                self._turns.discard(suspect)  # before the engine is emptied for it
                self._happened(suspect, Event.UNREACHABLE)
                continue
            # What waits for a slow store comes behind a suspect, should it come meanwhile.
            engine = self._feed or self._feed.gathered
            idle = not (engine or self._claiming.waited_for or self._places.coming)
            skip |= self._claiming.crowding | held_up | self._quotas.held_back
            if self._places.crowded:
                skip |= {each.tenant for each in self._places.slow}
            entry = self._turns.next(idle=idle, skip=skip)
            if entry is None:
                return
            self._note_turn(entry, time.monotonic())
            if not self._reachable(entry):
                self._turns.over(entry)
                self._billing.settle(entry)
                self._happened(entry, Event.UNREACHABLE)
            elif entry.owned:
                self._places.chosen.add(entry)
                self._happened(entry, Event.CHOSEN)
            else:
                self._claiming.add(entry)
                self._happened(entry, Event.DUE)
        self._wake.set()  # others first: so many at once are mostly parked

    def _note_turn(self, entry: Entry, now: float) -> None:
        if entry.claimed:  # this is its second turn: in the first one it was taken over
            return
        self._quotas.started(entry.tenant, now)
        more = bool(self._backlog.before(entry.tenant, -MAX_ABSOLUTE_PRIORITY))
        self._times.turn(entry.tenant, now, more=more)

    def _without_place(self) -> set[str] | None:
        """Return the tenants that may have no more jobs prepared; None: nobody may.

        Once the places of all are filled, a tenant may have one job prepared.
        """
        if self._places.full:
            return None
        ready = self._places.taken + len(self._behind) + self._feed.gathered
        if ready < self._max_rows:
            return set()
        if ready >= (1 + OTHER_BATCHES) * self._max_rows:
            return None
        places = self._places.chosen, self._places.abandoned, self._behind, self._feed.waiting()
        return {entry.tenant for entries in places for entry in entries}

    def _request(self, entry: Entry) -> GenerationRequest:
        again = bool(entry.submitted_ms)  # it gave way to another
        entry.seed = seed_of(entry)
        self._happened(entry, Event.SUBMITTED)
        if not again:
            entry.submitted_ms = time.time() * 1_000
            self._billing.begun(entry)
            count_begun(entry, self._metrics)
        return request_of(entry, self._salt_of(entry.tenant))
