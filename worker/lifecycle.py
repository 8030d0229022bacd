"""Drives the life of every job of a worker: events come in, what the table says is done.

The stages, and what follows from what, stand in `aril.worker.stages`; how that is done, in
`aril.worker.effects`. Here is what the consumer, the engine and the clock bring; the parts tell of
the rest.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from aril.schemas import ErrorCode, JobError
from aril.worker.accounting import count_move
from aril.worker.effects import Effects
from aril.worker.intake.admission import Admitted, Cancelled, Conflicting, SentAgain, Unusable
from aril.worker.intake.deadlines import Deadlines, too_late
from aril.worker.intake.quotas import Quotas
from aril.worker.observe.logs import get_logger
from aril.worker.placement.load_meter import Sample
from aril.worker.queue.held import HeldPartitions
from aril.worker.stages import GOES_ON, UNTOUCHED, Event, Stage, UnexpectedEventError
from aril.worker.wiring import wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aril.worker.engine.request import Output
    from aril.worker.job import Entry, Partition, Record
    from aril.worker.observe.metrics import Metrics
    from aril.worker.queue.assignment import PartitionState
    from aril.worker.queue.raw_batch import Part
    from aril.worker.settings import WorkerSettings
    from aril.worker.wiring import Surroundings

log = get_logger(__name__)


class Lifecycle:
    """All jobs of one worker. Lives on the event loop."""

    def __init__(
        self, settings: WorkerSettings, metrics: Metrics, surroundings: Surroundings
    ) -> None:
        self._metrics = metrics
        self._tracing = surroundings.tracing
        self._prove = surroundings.prove
        self._clock = surroundings.writer.clock
        self._engine = surroundings.engine
        self._why_refused = surroundings.why_refused
        self._held = HeldPartitions()
        self._deadlines = Deadlines()
        self._parted = False  # from the loss of all partitions to the next assignment
        self._quotas = Quotas(surroundings.limits)
        self.parts = parts = wire(
            settings,
            metrics,
            surroundings,
            happened=self.happened,
            prove=self._prove_ours,
            quotas=self._quotas,
        )
        effects = Effects(
            parts,
            held=self._held,
            clock=self._clock,
            metrics=metrics,
            happened=self.happened,
            end=self.end,
        )
        self._effects = effects.handlers

    # --- events

    def happened(self, entry: Entry, event: Event) -> None:
        """Bring a job to its next stage, and do what that takes."""
        before = entry.stage
        try:
            effects = entry.life.happen(event)
        except UnexpectedEventError as error:
            self._unexpected(entry, error)
            return
        entry.touched |= entry.stage not in UNTOUCHED
        self._quotas.moved(entry)
        count_move(entry, before, self._metrics)
        self._tracing.moved(entry)
        for effect in effects:
            self._effects[effect](entry)

    def end(self, entry: Entry, error: JobError) -> None:
        """End a job with an error; too late where it is known already how it ends."""
        if not entry.ending:
            entry.error = error
            self.happened(entry, Event.FAILED)

    def _unexpected(self, entry: Entry, error: UnexpectedEventError) -> None:
        log.error("unexpected_event", job=entry.job_id, tenant=entry.tenant, error=str(error))
        self._metrics.unexpected_events.inc()
        self.end(entry, JobError(ErrorCode.INTERNAL, "the worker lost track of the job"))

    # --- from the consumer

    def on_assigned(self, states: Iterable[PartitionState]) -> None:
        """Take note of partitions that were won; jobs of those that came back go on."""
        for entry in self._held.assign(states):
            self._drop(entry)
        self._parted = False
        self.parts.dispatcher.hold(on=False)
        self._metrics.partitions.set(len(self._held))
        self._metrics.standby.set(not self._held)
        self._metrics.assigned(time.monotonic())

    def on_records(self, state: PartitionState, records: list[Record]) -> None:
        """Take records in."""
        # Where a topic has not the brokers' times, its producers could end everybody's jobs.
        if records and self._why_refused(state.source.topic) is None:
            self._clock.saw(records[-1].timestamp_ms, time.time() * 1_000)
        for record in records:
            again, lost = self._held.redelivered(state, record)
            for entry in lost:
                self._drop(entry)
            if again is not None:
                self._metrics.kept.inc()
            else:
                self._read(state, record)

    def on_unreadable(self, state: PartitionState, part: Part) -> None:
        """Put aside what is left of a record, or of a batch, that cannot be read."""
        self.parts.jobless.put_aside_unreadable(
            state, part, JobError(ErrorCode.INVALID_JOB, part.why)
        )

    def on_revoked(self, states: Iterable[PartitionState]) -> None:
        """Stop these partitions' jobs, but for those that are ours: they may come back in a moment.

        What runs goes on writing under its epoch until the next assignment is known: should the
        partition be somebody else's by then, its claim is above that epoch. Nothing is begun.
        """
        self._parted = True
        self.parts.dispatcher.hold(on=True)
        for entry in self._held.revoke(states):
            self._drop(entry)
        self._metrics.partitions.set(len(self._held))
        self._metrics.partitions_gone(time.monotonic())

    def on_lost_jobs(self, source: Partition, count: int) -> None:
        """Count jobs that retention deleted unanswered."""
        self._metrics.lost.inc(count)
        log.error("jobs_lost", topic=source.topic, partition=source.partition, count=count)

    def is_full(self, source: Partition) -> bool:
        """Tell whether reading a partition should rest for now.

        Not while jobs are read again that are here: they take no room.
        """
        if self._held.awaits(source):
            return False
        return self.parts.dispatcher.is_full(source) or self.parts.pending.full(source)

    def release_all(self) -> None:
        """Stop every job: we are leaving. What is read from now on is begun by others."""
        self._parted = True
        self.parts.dispatcher.hold(on=True)
        for entry in self._held.jobs:
            self._drop(entry)

    def hand_on(self) -> dict[Partition, list[int]]:
        """Stop all that has not begun: we are leaving. Return what goes on here to its end."""
        self.parts.dispatcher.hold(on=True)
        going_on: dict[Partition, list[int]] = defaultdict(list)
        ahead = {*self.parts.dispatcher.ahead}
        for entry in self._held.jobs:
            if entry.stage in GOES_ON and entry not in ahead:
                going_on[entry.source].append(entry.record.offset)
            else:
                self._drop(entry)
        self._metrics.partitions.set(0)
        return going_on

    @property
    def engine_lost(self) -> bool:
        """Whether what runs will not go on: its engine has failed, or hangs."""
        return self._engine.lost

    def sample(self) -> Sample:
        """Return what there is to do now."""
        return Sample(
            {state.source: state.unfinished for state in self._held},
            self.parts.dispatcher.running_adapters,
        )

    def _read(self, state: PartitionState, record: Record) -> None:
        match self.parts.admission.read(state, record):
            case Admitted(entry):
                self._tracing.began(entry)
                self._deadlines.add(entry)
                if entry.error is None:
                    entry.error = self._quotas.admit(entry, time.monotonic())
                if entry.error is not None:
                    self.happened(entry, Event.FAILED)
                self.parts.routes.look_up(entry)
            case Cancelled(entry):
                self.end(entry, JobError(ErrorCode.CANCELLED, "cancelled by its tenant"))
            case SentAgain(notice):
                self.parts.jobless.redirect(state, record, notice)
            case Conflicting(notice, error):
                self.parts.jobless.conflict(state, record.lean(), notice, error)
            case Unusable(reason, error):
                self.parts.jobless.put_aside(state, record.lean(), reason, error)

    def _drop(self, entry: Entry) -> None:
        """Stop a job that is not ours any more; nothing more of it is written or committed.

        The next owner takes one that is not released for a strike. So it is with what runs in an
        engine that has failed or hangs, for the same reason as after a crash: it may be to blame.
        """
        entry.kept = False
        abandoned = entry.stage is Stage.RUNNING and self.engine_lost
        self.happened(entry, Event.ABANDONED if abandoned else Event.DROPPED)

    # --- from the engine

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        """Pass on what steps brought; outputs of jobs that were withdrawn are dropped."""
        for output in outputs:
            entry = self.parts.dispatcher.find(output.key)
            if entry is None:
                continue
            try:
                self._take(entry, output)
            except Exception:
                log.exception("output_failed", job=entry.job_id, tenant=entry.tenant)
                self.end(entry, JobError(ErrorCode.INTERNAL, "the answer could not be passed on"))

    def _take(self, entry: Entry, output: Output) -> None:
        if output.ids:
            self.parts.answers.tokens(entry, output)
            self.parts.dispatcher.brought(entry, output.ids)
        if output.error is not None:
            self.parts.dispatcher.ended(entry)
            self.end(entry, output.error)
        elif output.finish is not None:
            self.parts.dispatcher.ended(entry)
            if output.text and not output.ids:
                self.parts.answers.rest(entry, output.text)
            entry.finish = output.finish
            entry.prompt_logprobs = output.prompt_logprobs
            self.happened(entry, Event.FINISHED)

    # --- from the clock

    def tick(self) -> None:
        """End the jobs whose time is up; let those go on that waited for something else's."""
        self.parts.parking.tick(time.monotonic())
        self.parts.dispatcher.tick()
        now = self._clock.now_ms(time.time() * 1_000)
        if not self._parted:  # whoever has them next may have been told that nobody began them
            for entry in self._deadlines.due(now):
                self.end(entry, too_late(entry, now))
        unfinished = 0
        for state in self._held:
            unfinished += state.unfinished
            if state.crowded and (oldest := state.oldest_waiting) is not None:
                self.parts.dispatcher.hurry(oldest)
        self._deadlines.prune(unfinished)
        self._metrics.unfinished_jobs.set(unfinished)
        self._metrics.clock_skew_seconds.set(self._clock.skew_seconds)
        self._metrics.outgoing_bytes.set(self.parts.pending.bytes)

    async def _prove_ours(self, entry: Entry, base: int) -> int | None:
        state = self._held.state_of(entry)
        if state is None:
            return None
        base = max(state.base, base)
        return base if await self._prove(state, base) else None
