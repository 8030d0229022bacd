"""When a step's tokens are given out: while the next one computes, where steps tell."""

import asyncio
from collections.abc import Callable

import pytest

from tests.support.engine_thread import CountingEngine, running
from tests.support.generation import request


async def test_what_a_step_brought_comes_when_the_next_one_computes() -> None:
    """Not before, where steps tell: Python's lock is free then. The last step's come at once."""
    engine = CountingEngine()
    async with running(engine) as (thread, listener):
        held: list[int] = []

        def tells(step: int) -> bool:
            held.append(len(thread._held))
            if step == 2:
                engine.go.clear()  # it computes until it is let go on
            return True

        engine.tells = tells
        thread.submit([request(1, max_tokens=3)])
        while not listener.outputs:
            listener.changed.clear()
            await asyncio.wait_for(listener.changed.wait(), 5)
        assert listener.ids(1) == [0]
        assert engine.calls.count("step") == 2
        engine.go.set()
        await listener.until("ended", [1])
    assert held == [0, 1, 1]
    assert listener.ids(1) == [0, 1, 2]


@pytest.mark.parametrize(
    "tells", [lambda step: step % 2 == 0, lambda step: step % 3 != 0, lambda step: step < 3]
)
async def test_nothing_is_lost_where_some_steps_tell(tells: Callable[[int], bool]) -> None:
    """In order, each once, whichever steps they are."""
    engine = CountingEngine()
    engine.tells = tells
    async with running(engine) as (thread, listener):
        thread.submit([request(1, max_tokens=20), request(2, max_tokens=7)])
        await listener.until("ended", [1, 2])
    assert [listener.ids(1), listener.ids(2)] == [[*range(20)], [*range(7)]]


async def test_an_end_is_told_though_no_step_follows() -> None:
    """One job ends in a step, all others are cancelled while it runs."""
    engine = CountingEngine()
    engine.tells = lambda _: True
    engine.go.clear()
    async with running(engine) as (thread, listener):
        thread.submit([request(1, max_tokens=1), request(2, max_tokens=50)])
        await asyncio.to_thread(engine.entered.wait)
        thread.cancel(2)
        engine.go.set()
        await asyncio.wait_for(listener.until("ended", [1]), 5)
    assert engine.calls.count("step") == 1


async def test_a_failure_comes_behind_what_was_held() -> None:
    """The tokens of the steps before stand."""
    engine = CountingEngine()

    def tells(step: int) -> bool:
        if step == 4:
            engine.fail = RuntimeError("device lost")
            return False
        return True

    engine.tells = tells
    async with running(engine) as (thread, listener):
        thread.submit([request(1, max_tokens=9)])
        await listener.until("failed")
    assert listener.ids(1) == [0, 1, 2]
    assert len(listener.failures) == 1
