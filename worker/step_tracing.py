"""Traces of the engine's steps: of one a second, so that a span is not made each few milliseconds.

Off unless ARIL_TRACES=steps; then this stands between the engine and its thread.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from aril.worker.engine.request import GenerationRequest, Output
    from aril.worker.engine.runner import StepEngine

STEP_SECONDS: Final = 1.0  # between one step that is told of and the next


class Step(NamedTuple):
    """One step that brought something. Nanoseconds since the epoch."""

    start_ns: int
    end_ns: int
    tokens: Mapping[int, int]  # that it brought, by the engine's keys


class TracedEngine:
    """An engine that tells of a step once in a while, in its thread. See StepEngine."""

    def __init__(
        self,
        engine: StepEngine,
        tell: Callable[[Step], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._tell = tell
        self._clock = clock
        self._next = clock()

    def submit(self, request: GenerationRequest) -> None:
        """See StepEngine."""
        self._engine.submit(request)

    def cancel(self, key: int) -> None:
        """See StepEngine."""
        self._engine.cancel(key)

    @property
    def has_work(self) -> bool:
        """See StepEngine."""
        return self._engine.has_work

    def step(self) -> list[Output]:
        """Run one step; tell of it if its time has come and it brought a token."""
        now = self._clock()
        if now < self._next:
            return self._engine.step()
        start_ns = time.time_ns()
        outputs = self._engine.step()
        tokens = {output.key: len(output.ids) for output in outputs if output.ids}
        if tokens:
            self._next = now + STEP_SECONDS
            self._tell(Step(start_ns, time.time_ns(), tokens))
        return outputs


def traced(
    engine: StepEngine, stepped: Callable[[Step], None], loop: asyncio.AbstractEventLoop
) -> StepEngine:
    """Return an engine whose steps are told of on the event loop, before what they brought."""

    def tell(step: Step) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            loop.call_soon_threadsafe(stepped, step)

    return TracedEngine(engine, tell)
