"""The service: from records to settled offsets. Wires admission, dispatcher, answers and ledger.

Here stand the rules that need more than one of them: how a job is ended at each stage, how one
whose append failed goes on, and which go on across a rebalance.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from schemas import ErrorCode, JobError
from worker.intake.admission import Admission
from worker.intake.deadlines import Deadlines, too_late
from worker.job import Stage
from worker.observe.logs import get_logger
from worker.placement.load_meter import Sample
from worker.queue.kept_jobs import KeptJobs
from worker.replies.stream import ReplyStream
from worker.takeover.rule import next_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from worker.batching.dispatch import Dispatcher
    from worker.engine.request import Output
    from worker.intake.tenant_keys import TenantKeys
    from worker.job import Entry, Partition, Record
    from worker.observe.metrics import Metrics
    from worker.queue.assignment import PartitionState
    from worker.replies.answers import Answers
    from worker.replies.pending_bytes import Outgoing
    from worker.replies.routes import ReplyRoutes
    from worker.settings import WorkerSettings

log = get_logger(__name__)

RETRY_SECONDS = 1.0


class Service:
    """All jobs of one worker. Lives on the event loop."""

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        worker: str,
        routes: ReplyRoutes,
        metrics: Metrics,
        outgoing: Outgoing,
        keys: TenantKeys | None = None,
    ) -> None:
        self._worker = worker
        self._outgoing = outgoing
        self._routes = routes
        self._metrics = metrics
        self._states: dict[Partition, PartitionState] = {}
        self._kept = KeptJobs()
        self._deadlines = Deadlines()
        self._admission = Admission(
            settings=settings, worker=worker, metrics=metrics, jobs=self, keys=keys
        )
        self._dispatcher: Dispatcher
        self._answers: Answers

    def bind(self, dispatcher: Dispatcher, answers: Answers) -> None:
        """Set the two that call back into this one."""
        self._dispatcher = dispatcher
        self._answers = answers

    # --- what the consumer calls

    def on_assigned(self, states: Iterable[PartitionState]) -> None:
        """Take note of partitions that were won; jobs of those that came back go on."""
        self._states = {state.source: state for state in states}
        for entry in self._kept.meet(self._states):
            self._drop(entry)
        self._metrics.partitions.set(len(self._states))
        self._metrics.standby.set(not self._states)

    def on_records(self, state: PartitionState, records: list[Record]) -> None:
        """Take records in."""
        for record in records:
            kept = self._kept.take(state.source, record.offset)
            if kept is None:
                self._admission.take(state, record)
            else:
                self._go_on(state, kept)

    def on_revoked(self, states: Iterable[PartitionState]) -> None:
        """Stop these partitions' jobs, but for running ones: they may come back in a moment.

        What runs goes on writing under its epoch until the next assignment is known: should the
        partition be somebody else's by then, its claim is above that epoch.
        """
        states = list(states)
        for state in states:
            state.revoked = True
            self._states.pop(state.source, None)
        for entry in self._kept.part(states):
            self._drop(entry)
        self._metrics.partitions.set(len(self._states))

    def release_all(self) -> None:
        """Stop every job on purpose: we are leaving."""
        for state in self._states.values():
            for entry in state.entries:
                self._drop(entry)
        for entry in self._kept:
            self._drop(entry)

    def state_of(self, entry: Entry) -> PartitionState | None:
        """Return the assignment that a job belongs to, if that is the present one."""
        return None if entry.dropped or entry.kept else self._states.get(entry.source)

    def on_lost_jobs(self, source: Partition, count: int) -> None:
        """Count jobs that retention deleted unanswered."""
        self._metrics.lost.inc(count)
        log.error("jobs_lost", topic=source.topic, partition=source.partition, count=count)

    def is_full(self, source: Partition) -> bool:
        """Tell whether reading a partition should rest for now."""
        return self._dispatcher.is_full(source) or self._outgoing.full(source)

    def sample(self) -> Sample:
        """Return what there is to do now."""
        return Sample(
            {source: state.unfinished for source, state in self._states.items()},
            self._dispatcher.running_adapters,
        )

    # --- what the engine calls

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        """Pass on what steps brought; outputs of jobs that were withdrawn are dropped."""
        for output in outputs:
            entry = self._dispatcher.find(output.key)
            if entry is None:
                continue
            if output.ids:
                self._answers.tokens(entry, output)
            if output.error is not None:
                self._dispatcher.ended(entry)
                self._answers.fail(entry, output.error)
            elif output.finish is not None:
                self._dispatcher.ended(entry)
                if output.text and not output.ids:
                    entry.stream.add((), output.text)
                self._answers.done(entry, output.finish)

    # --- what the writing calls

    def settled(self, entry: Entry) -> None:
        """Mark a job's offset as finished: its terminal is acknowledged."""
        entry.settled = True
        state = self.state_of(entry)
        if state is not None:
            state.finish(entry)

    def broken(self, entry: Entry) -> None:
        """Go on with a job whose last append failed, or may have: claim it under the next attempt.

        What landed is learned by reading back, as if another worker had written it.
        """
        if entry.stage is Stage.RUNNING:
            self._dispatcher.withdraw(entry)
        self._metrics.interrupted.inc()
        self._give_up_stream(entry)
        log.warning(
            "job_interrupted",
            job=entry.job_id,
            tenant=entry.tenant,
            attempt=entry.epoch.attempt,
        )
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._begin_again, entry)

    def run_alone(self, entry: Entry) -> None:
        """Let a job wait until it can run with nothing beside it: its writers kept crashing."""
        self._answers.release(entry)
        self._give_up_stream(entry)
        entry.alone = True
        self._dispatcher.add(entry)

    def withdraw(self, entry: Entry) -> None:
        """Stop a job whose answer nobody can write."""
        self._dispatcher.withdraw(entry)

    # --- what reading records calls

    def admitted(self, entry: Entry) -> None:
        """Begin with a job that is new."""
        self._deadlines.add(entry)
        self._routes.route(entry)

    def end(self, entry: Entry, error: JobError) -> None:
        """End a job with an error, at whatever stage it is."""
        if entry.stage is Stage.ARRIVED:  # told as soon as it is known where
            entry.error = entry.error or error
            return
        self._dispatcher.withdraw(entry)
        self._answers.fail(entry, error)

    def put_aside(
        self, record: Record, reason: str, error: JobError, settled: Callable[[], None]
    ) -> None:
        """Put a record aside that nobody is told of, then call ``settled``."""
        self._answers.put_aside(record, reason, error, settled)

    # --- what the look-up of reply topics calls

    def routed(self, entry: Entry) -> None:
        """Send a job on its way, now that it is known where its answer goes."""
        now = time.time() * 1_000
        if entry.error is None and entry.deadline_ms <= now:
            entry.error = too_late(entry, now)
        if entry.error is not None:
            self._answers.fail(entry, entry.error)
        else:
            self._dispatcher.add(entry)

    def unanswerable(self, entry: Entry) -> None:
        """Put a job aside whose tenant has no reply topic."""
        missing = JobError(ErrorCode.INVALID_JOB, f"tenant: there is no topic {entry.reply_topic}")
        self._answers.unanswerable(entry, "missing_reply_topic", missing)

    # --- time

    def tick(self) -> None:
        """End the jobs whose time is up; let a partition whose done list is full go on."""
        now = time.time() * 1_000
        for entry in self._deadlines.due(now):
            self.end(entry, too_late(entry, now))
        unfinished = 0
        for state in self._states.values():
            unfinished += state.unfinished
            if state.crowded and (oldest := state.oldest_waiting) is not None:
                self._dispatcher.hurry(oldest)
        self._deadlines.prune(unfinished)
        self._metrics.unfinished_jobs.set(unfinished)
        self._metrics.outgoing_bytes.set(self._outgoing.bytes)

    # --- going on

    def _begin_again(self, entry: Entry) -> None:
        if not entry.dropped:
            self._routes.route(entry)

    def _give_up_stream(self, entry: Entry) -> None:
        """End what was written under the present epoch; the next one begins with a claim."""
        entry.key = self._admission.next_key()
        entry.owned = False
        entry.stream = ReplyStream(
            job=entry.job_id, epoch=next_attempt(entry.epoch), worker=self._worker
        )
        entry.resume_ids = ()
        entry.first_token_ms = 0.0
        entry.stage = Stage.ARRIVED

    def _go_on(self, state: PartitionState, entry: Entry) -> None:
        """Move a job that ran across a rebalance to the new assignment: its record is back."""
        entry.kept = False
        entry.generation = state.membership.generation
        entry.settled_with.clear()  # they are delivered again, too
        self._metrics.kept.inc()
        state.add(entry)
        if entry.settled:
            state.finish(entry)

    def _drop(self, entry: Entry) -> None:
        """Stop a job that is not ours any more; nothing more of it is written or committed."""
        entry.dropped = True
        entry.kept = False
        self._dispatcher.withdraw(entry)
        self._answers.release(entry)
