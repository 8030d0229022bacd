"""The engine thread: order, delivery, failure and closing, with an engine that counts."""

import asyncio
import threading

import pytest

from aril.schemas import ErrorCode
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.runner import EngineStoppedError, EngineThread
from aril.worker.observe.health import STALE_HEARTBEAT_SECONDS
from tests.support.engine_thread import CountingEngine, Listener, running
from tests.support.generation import request


async def test_outputs_come_in_order_on_the_event_loop() -> None:
    """Steps run in another thread, callbacks on the loop's, and nothing is lost or reordered."""
    engine = CountingEngine()
    async with running(engine) as (thread, listener):
        for key in range(20):
            thread.submit([request(key, max_tokens=1 + key % 7)])
        await listener.until("ended", range(20))
    for key in range(20):
        assert listener.ids(key) == list(range(1 + key % 7))
    assert listener.threads == {threading.get_ident()}
    assert len(engine.threads) == 1
    assert not engine.threads & listener.threads
    assert not listener.failures


async def test_requests_and_cancels_take_effect_in_order_at_a_step_boundary() -> None:
    """What comes during a step waits for its end, then applies in the order of the calls."""
    engine = CountingEngine()
    engine.go.clear()
    async with running(engine) as (thread, listener):
        thread.submit([request(1, max_tokens=2)])
        await asyncio.to_thread(engine.entered.wait)
        thread.submit([request(2, max_tokens=1), request(3, max_tokens=1)])
        thread.cancel(2)
        thread.cancel(99)
        assert engine.calls == ["submit 1", "step"]
        engine.go.set()
        await listener.until("ended", [1, 3])
    assert engine.calls[2:7] == ["submit 2", "submit 3", "cancel 2", "cancel 99", "step"]
    assert listener.ids(2) == []


async def test_a_lagging_event_loop_gets_one_batch() -> None:
    """All steps that end while the loop is busy arrive in one call."""
    engine = CountingEngine()
    async with running(engine) as (thread, listener):
        thread.submit([request(1, max_tokens=50)])
        while len(engine.calls) < 51:
            pass  # the loop does nothing else meanwhile
        await listener.until("ended", [1])
        assert len(listener.batches) <= 2
    assert listener.ids(1) == list(range(50))


async def test_a_refused_request_is_told_and_harms_no_other() -> None:
    """A JobError of the engine's submit becomes the output of that request."""
    async with running(CountingEngine()) as (thread, listener):
        thread.submit([request(1, max_tokens=101), request(2, max_tokens=3)])
        await listener.until("ended", [1, 2])
    (refusal,) = (output for output in listener.outputs if output.key == 1)
    assert refusal.error is not None
    assert refusal.error.code == ErrorCode.LIMIT_EXCEEDED
    assert listener.ids(2) == [0, 1, 2]


async def test_an_idle_engine_is_not_stepped() -> None:
    """Without work there are no steps, and the next request wakes the thread again."""
    engine = CountingEngine()
    async with running(engine) as (thread, listener):
        for key in range(3):
            thread.submit([request(key, max_tokens=1)])
            await listener.until("ended", [key])
            while thread.age() > 0:  # noqa: ASYNC110 - the thread tells nobody that it is idle
                await asyncio.sleep(0.001)
    assert engine.calls.count("step") == 3


@pytest.mark.parametrize("error", [RuntimeError("device lost"), SystemExit(3)])
async def test_a_failure_is_reported_once(error: BaseException) -> None:
    """An exception of a step arrives behind the outputs before it; then all submits are refused."""
    engine = CountingEngine()
    async with running(engine) as (thread, listener):
        thread.submit([request(1, max_tokens=1)])
        await listener.until("ended", [1])
        engine.fail = error
        thread.submit([request(2)])
        await listener.until("failed")
        with pytest.raises(EngineStoppedError):
            thread.submit([request(3)])
        thread.cancel(2)
        assert thread.age() == 0
    assert listener.failures == [error]
    assert listener.ids(1) == [0]


async def test_the_heartbeat_ages_only_during_a_step() -> None:
    """Age counts from the last step boundary, and an idle engine has none."""
    engine, now = CountingEngine(), [100.0]
    thread, listener = EngineThread(engine, clock=lambda: now[0]), Listener()
    assert thread.age() == 0
    engine.go.clear()
    thread.start(
        asyncio.get_running_loop(),
        on_outputs=listener.on_outputs,
        on_failure=listener.on_failure,
    )
    try:
        thread.submit([request(1, max_tokens=1)])
        await asyncio.to_thread(engine.entered.wait)
        now[0] = 107.5
        assert thread.age() == 7.5
    finally:
        engine.go.set()
        await asyncio.to_thread(thread.close, drain=True)
    assert thread.age() == 0


async def test_an_engine_is_lost_once_it_failed_or_hangs() -> None:
    """While a step runs it is not; two minutes later it is, and for good once it raised."""
    engine, now = CountingEngine(), [100.0]
    thread, listener = EngineThread(engine, clock=lambda: now[0]), Listener()
    engine.go.clear()
    thread.start(
        asyncio.get_running_loop(),
        on_outputs=listener.on_outputs,
        on_failure=listener.on_failure,
    )
    try:
        thread.submit([request(1, max_tokens=3)])
        await asyncio.to_thread(engine.entered.wait)
        assert not thread.lost
        now[0] += STALE_HEARTBEAT_SECONDS + 1
        assert thread.lost
        await asyncio.to_thread(thread.close, timeout=0.01)  # does not wait for it
        assert thread.lost
        engine.fail = RuntimeError("broken")
    finally:
        engine.go.set()
    await listener.until("failed")
    assert thread.lost


async def test_a_request_that_cannot_be_begun_ends_alone() -> None:
    """Whatever submitting it raises: `internal` for it, the thread goes on with the others."""
    engine = CountingEngine()
    submit = engine.submit

    def broken(job: GenerationRequest) -> None:
        if job.key == 1:
            raise ValueError("a secret prompt")
        submit(job)

    engine.submit = broken  # type: ignore[method-assign]
    async with running(engine) as (thread, listener):
        thread.submit([request(1, max_tokens=2), request(2, max_tokens=2)])
        await listener.until("ended", [1, 2])
    [error] = [output.error for output in listener.outputs if output.error is not None]
    assert error.code is ErrorCode.INTERNAL
    assert "secret" not in error.message
    assert listener.ids(2) == [0, 1]
    assert listener.failures == []


async def test_closing_with_drain_finishes_the_work() -> None:
    """Requests handed over before the close are answered whole; later ones are refused."""
    engine = CountingEngine()
    async with running(engine) as (thread, listener):
        thread.submit([request(key, max_tokens=30) for key in range(3)])
        await asyncio.to_thread(thread.close, drain=True)
        with pytest.raises(EngineStoppedError):
            thread.submit([request(9)])
        await listener.until("ended", range(3))
    assert [listener.ids(key) for key in range(3)] == [list(range(30))] * 3


async def test_closing_at_once_ends_after_the_running_step() -> None:
    """Without drain the step that runs is the last, though there is work left."""
    engine = CountingEngine()
    engine.go.clear()
    async with running(engine) as (thread, listener):
        thread.submit([request(1, max_tokens=30)])
        await asyncio.to_thread(engine.entered.wait)
        closing = asyncio.create_task(asyncio.to_thread(thread.close))
        while not thread._stopped:  # noqa: ASYNC110 - set in another thread, which tells nobody
            await asyncio.sleep(0)
        engine.go.set()
        await closing
        assert engine.calls.count("step") == 1
        await asyncio.sleep(0)
        assert listener.ids(1) == [0]


def test_an_event_loop_that_is_gone_does_not_break_the_thread() -> None:
    """Outputs that nobody can take are dropped, and the thread still ends in order."""
    engine, listeners = CountingEngine(), []

    async def start() -> EngineThread:
        listeners.append(Listener())
        thread = EngineThread(engine)
        thread.start(
            asyncio.get_running_loop(),
            on_outputs=listeners[0].on_outputs,
            on_failure=listeners[0].on_failure,
        )
        return thread

    thread = asyncio.run(start())
    thread.submit([request(1, max_tokens=5)])
    thread.close(drain=True)
    assert engine.calls.count("step") == 5
    assert listeners[0].outputs == []


def test_a_thread_that_never_started_can_be_closed() -> None:
    """Closing before the start returns at once, and again."""
    thread = EngineThread(CountingEngine())
    thread.close()
    thread.close(drain=True)
