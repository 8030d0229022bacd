"""An engine in a thread of its own, so that the event loop goes on while it computes.

Why a thread and not a process: docs/decisions/035-engine-thread.md.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

from aril.kernels.program import HERE
from aril.schemas import ErrorCode, JobError
from aril.worker.engine.request import GenerationRequest, Output
from aril.worker.observe.health import STALE_HEARTBEAT_SECONDS
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

log = get_logger(__name__)


class EngineStoppedError(RuntimeError):
    """The engine was closed or has failed: it takes no more requests."""


class StepEngine(Protocol):
    """What the thread drives; none of it is called from two threads at once."""

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request. JobError: this one cannot be served."""

    def cancel(self, key: int) -> None:
        """Drop a request; unknown keys are ignored."""

    def step(self) -> list[Output]:
        """Run one step."""

    @property
    def has_work(self) -> bool:
        """Whether a step would bring something forward."""


class EngineThread:
    """Runs an engine's steps while it has work; sleeps on a condition when it has none.

    `submit` and `cancel` may be called from any thread; they take effect at the next step boundary,
    in the order of the calls. Outputs go to `on_outputs` on the event loop, in order, as one batch
    for all steps since the last one. Those of a request may still arrive just after its `cancel`.
    """

    def __init__(self, engine: StepEngine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        # A daemon: a step that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        # All below is guarded by the condition's lock.
        self._changed = threading.Condition()
        self._inbox: deque[GenerationRequest | int] = deque()  # a number is a key to cancel
        self._outbox: list[Output] = []
        # The thread's own: what it gives out when the next step computes, and whether steps tell.
        self._held: list[Output] = []
        self._told = False
        self._stopped = False
        self._drain = False
        self._failed = False
        self._busy_since: float | None = None  # the last step boundary; None while idle

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_outputs: Callable[[Sequence[Output]], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Start the thread. `on_failure` is called at most once, after the last outputs."""
        self._loop = loop
        self._on_outputs = on_outputs
        self._on_failure = on_failure
        self._thread.start()

    def submit(self, requests: Iterable[GenerationRequest]) -> None:
        """Hand requests over; raises EngineStoppedError after a failure or `close`."""
        with self._changed:
            if self._stopped or self._failed:
                raise EngineStoppedError("the engine takes no more requests")
            self._inbox.extend(requests)
            self._changed.notify()

    def cancel(self, key: int) -> None:
        """Drop a request, wherever it is; unknown and finished ones are ignored."""
        with self._changed:
            self._inbox.append(key)
            self._changed.notify()

    def age(self) -> float:
        """Seconds since the last step boundary; 0 while there is nothing to do."""
        with self._changed:
            return 0.0 if self._busy_since is None else self._clock() - self._busy_since

    @property
    def lost(self) -> bool:
        """Whether a step raised, or one has been running for so long that it hangs."""
        with self._changed:
            failed = self._failed
        return failed or self.age() > STALE_HEARTBEAT_SECONDS

    def close(self, *, drain: bool = False, timeout: float | None = None) -> None:
        """Stop after the step that is running, or with `drain` after the last one.

        Waits for it, up to `timeout` seconds.
        """
        with self._changed:
            self._stopped = True
            self._drain = drain
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        HERE.before_long_run = self._give_out
        try:
            while self._next_step():
                self._told = False
                outputs = self._engine.step()  # which gives out what is held
                self._held += outputs
                if not (self._told and self._engine.has_work):
                    self._give_out()
            self._give_out()
        except BaseException as error:
            log.exception("engine_failed")
            self._give_out()
            with self._changed:
                self._failed = True
                self._busy_since = None
            self._call(partial(self._on_failure, error))
        else:
            with self._changed:
                self._busy_since = None

    def _give_out(self) -> None:
        """Deliver what steps have brought.

        The event loop has milliseconds of Python to do then. While the engine plans its next step
        the two would take the GIL from each other, five milliseconds at a time; once that step
        computes, it needs none.
        """
        self._told = True
        held, self._held = self._held, []
        self._deliver(held)

    def _next_step(self) -> bool:
        """Take in what has come; sleep until there is work. False when it is time to stop."""
        while True:
            with self._changed:
                inbox = tuple(self._inbox)
                self._inbox.clear()
                if self._stopped and not self._drain:
                    return False
            self._take_in(inbox)
            has_work = self._engine.has_work
            if not has_work:  # no step comes that would do it
                self._give_out()
            with self._changed:
                if has_work:
                    self._busy_since = self._clock()
                    return True
                self._busy_since = None
                if not self._inbox:
                    if self._stopped:
                        return False
                    self._changed.wait()

    def _take_in(self, inbox: Sequence[GenerationRequest | int]) -> None:
        refused: list[Output] = []
        if inbox:  # which may take a while
            self._give_out()
        for item in inbox:
            if isinstance(item, int):
                self._engine.cancel(item)
            elif error := self._refusal(item):
                refused.append(Output(item.key, error=error))
        self._deliver(refused)

    def _refusal(self, request: GenerationRequest) -> JobError | None:
        try:
            self._engine.submit(request)
        except JobError as error:
            return error.bare()
        except Exception:  # of this request alone: submitting changes nothing where it raises
            log.exception("submit_failed", key=request.key)
            return JobError(ErrorCode.INTERNAL, "the job could not be begun")
        return None

    def _deliver(self, outputs: list[Output]) -> None:
        if not outputs:
            return
        with self._changed:
            waiting = bool(self._outbox)  # then a hand-over is under way and takes these along
            self._outbox.extend(outputs)
        if not waiting:
            self._call(self._hand_over)

    def _hand_over(self) -> None:
        with self._changed:
            outputs, self._outbox = self._outbox, []
        self._on_outputs(outputs)

    def _call(self, function: Callable[[], None]) -> None:
        """Call on the event loop; one that is closed has nobody left to listen."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
