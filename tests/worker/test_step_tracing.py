"""One step a second is told of, and every step is the engine's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.engine.request import Output
from aril.worker.step_tracing import STEP_SECONDS, Step, TracedEngine

if TYPE_CHECKING:
    from aril.worker.engine.request import GenerationRequest


class Engine:
    """Brings what it is given, a list a step."""

    def __init__(self, *steps: list[Output]) -> None:
        self.steps = list(steps)
        self.cancelled: list[int] = []

    @property
    def has_work(self) -> bool:
        """Whether a step is left."""
        return bool(self.steps)

    def submit(self, request: GenerationRequest) -> None:
        """Take nothing."""

    def cancel(self, key: int) -> None:
        """Remember."""
        self.cancelled.append(key)

    def step(self) -> list[Output]:
        """Bring the next."""
        return self.steps.pop(0)


def test_a_step_that_brings_tokens_is_told_of_once_a_second() -> None:
    """One that brings none is passed over, and the next is looked at instead."""
    outputs = [[], [Output(1, (5,)), Output(2, (6, 7)), Output(3)], [Output(1, (8,))]]
    last = [Output(1, (9,))]
    engine, told = Engine(*outputs, last), list[Step]()
    now = 100.0
    traced = TracedEngine(engine, told.append, clock=lambda: now)
    for expected in outputs:
        assert traced.has_work
        assert traced.step() == expected
        now += 0.4 * STEP_SECONDS
    assert [step.tokens for step in told] == [{1: 1, 2: 2}]
    assert told[0].start_ns <= told[0].end_ns
    now += STEP_SECONDS
    assert traced.step() == last
    assert [step.tokens for step in told[1:]] == [{1: 1}]
    traced.cancel(4)
    assert (engine.cancelled, traced.has_work) == ([4], False)
