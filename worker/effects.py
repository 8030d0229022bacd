"""What is done about a job as the table of its life says: one handler for each effect.

Most are a method of one part. Those that take more than one, or a clock, stand here.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aril.schemas import ErrorCode, JobError
from aril.worker.accounting import ended
from aril.worker.intake.deadlines import is_hopeless, too_late, would_be_late
from aril.worker.observe.logs import get_logger
from aril.worker.stages import Effect, Event
from aril.worker.takeover.rule import next_attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.worker.job import Entry
    from aril.worker.observe.metrics import Metrics
    from aril.worker.queue.held import HeldPartitions
    from aril.worker.replies.broker_clock import BrokerClock
    from aril.worker.wiring import Parts

log = get_logger(__name__)

RETRY_SECONDS = 1.0


class Effects:
    """The handlers. Lives on the event loop."""

    def __init__(
        self,
        parts: Parts,
        *,
        held: HeldPartitions,
        clock: BrokerClock,
        metrics: Metrics,
        happened: Callable[[Entry, Event], None],
        end: Callable[[Entry, JobError], None],
    ) -> None:
        """Prepare; `happened` is told of events, `end` ends a job with an error."""
        self._parts = parts
        self._held = held
        self._clock = clock
        self._metrics = metrics
        self._happened = happened
        self._end = end
        self.handlers: dict[Effect, Callable[[Entry], None]] = {
            Effect.WAIT: self._wait,
            Effect.WAIT_FIRST: parts.dispatcher.add_first,
            Effect.WAIT_ALONE: self._wait_alone,
            Effect.TAKE_OVER: parts.claims.take_over,
            Effect.PREPARE: parts.dispatcher.prepare,
            Effect.GATHER: parts.dispatcher.gather,
            Effect.PULL_BACK: self._pull_back,
            Effect.LEAVE: parts.dispatcher.leave,
            Effect.FORGET: parts.claims.forget,
            Effect.PARK: parts.parking.park,
            Effect.UNPARK: parts.parking.unpark,
            Effect.WRITE_ANSWER: parts.answers.done,
            Effect.WRITE_ERROR: parts.answers.fail,
            Effect.RELEASE: self._release,
            Effect.BREAK_OFF: parts.answers.break_off,
            Effect.NEXT_EPOCH: self._next_epoch,
            Effect.LOOK_UP_LATER: self._look_up_later,
            Effect.SETTLE: self._settle,
            Effect.FINISH_OFFSET: self._finish,
            Effect.NOTE_BEGUN: held.begun,
        }

    def _wait(self, entry: Entry) -> None:
        now = self._clock.now_ms(time.time() * 1_000)
        if entry.deadline_ms <= now:
            self._end(entry, too_late(entry, now))
            return
        if entry.owned and not entry.claimed:  # else somebody may have begun it
            wait = self._parts.dispatcher.seconds_until_turn(entry)
            if wait is not None and is_hopeless(entry, wait, now):
                self._end(entry, would_be_late(entry, wait, now))
                return
        until = None if entry.owned else self._held.elsewhere_until(entry)
        if until is None or until <= time.monotonic():
            self._wait_turn(entry)
        else:
            self._parts.elsewhere.leave(entry, until, self._wait_turn)

    def _wait_turn(self, entry: Entry) -> None:
        self._parts.dispatcher.add(entry)
        if not (entry.owned or entry.alone):
            self._parts.claims.expect(entry)

    def _wait_alone(self, entry: Entry) -> None:
        log.warning("job_suspected", job=entry.job_id, strikes=entry.strikes)
        entry.alone = True
        self._parts.dispatcher.add(entry)

    def _pull_back(self, entry: Entry) -> None:
        self._parts.dispatcher.pull_back(entry, self._parts.admission.next_key())

    def _release(self, entry: Entry) -> None:
        self._parts.answers.release(entry, self._parts.claims.withdraw(entry))

    def _next_epoch(self, entry: Entry) -> None:
        """Let nothing of the present epoch count any more; the next one begins with a claim."""
        self._parts.answers.break_off(entry)
        entry.key = self._parts.admission.next_key()
        entry.epoch = next_attempt(entry.epoch)
        entry.owned = entry.claimed = False
        entry.resume_ids, entry.inherited = (), 0
        entry.brought.clear()
        entry.submitted_ms = entry.gathered = 0.0
        entry.prompt_logprobs = None  # megabytes, where it waits for a log; they are computed again
        entry.first_token_ms = 0.0

    def _look_up_later(self, entry: Entry) -> None:
        """Go on in a moment: what landed is learned by reading back, as if another had written."""
        self._metrics.interrupted.inc()
        entry.begun_before = True  # its stream stands still
        log.warning(
            "job_interrupted",
            job=entry.job_id,
            tenant=entry.tenant,
            attempt=entry.epoch.attempt,
        )

        def later() -> None:
            if not entry.dropped:
                self._parts.routes.look_up(entry)

        asyncio.get_running_loop().call_later(RETRY_SECONDS, later)

    def _settle(self, entry: Entry) -> None:
        if entry.dead_letter is None:
            self._happened(entry, Event.SETTLED)
            return
        reason = entry.dead_letter
        self._parts.dispatcher.when_whole(entry, lambda: self._put_aside(entry, reason))

    def _put_aside(self, entry: Entry, reason: str) -> None:
        self._parts.answers.put_aside(
            entry.record,
            reason,
            entry.error or JobError(ErrorCode.INTERNAL, "no answer could be written"),
            done=lambda: self._happened(entry, Event.SETTLED),
            dropped=lambda: entry.dropped,
        )

    def _finish(self, entry: Entry) -> None:
        self._metrics.ended(ended(entry, time.time() * 1_000))
        self._parts.claims.withdraw(entry)  # of one that could not be written
        self._held.finish(entry)
