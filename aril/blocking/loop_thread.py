"""An event loop in a thread of its own, for as long as one async context is open in it.

It is a daemon thread, so that an interpreter which ends does not wait for it; what is open then is
closed first, for at most `EXIT_SECONDS`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future, wait
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aril.blocking.call import Call, outcome
from aril.errors import ClientClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")

# All that were left open share them: cancels and connections mostly take a few milliseconds.
EXIT_SECONDS: Final = 2.0

_running: Final[weakref.WeakSet[LoopThread]] = weakref.WeakSet()


class LoopThread:
    """Enters `context` in a loop of its own, and runs coroutines there for other threads.

    Raises ClientClosed after `stop`, and in a process that was forked off: threads stay behind.
    """

    def __init__(self, context: AbstractAsyncContextManager[object], *, name: str) -> None:
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._pid = os.getpid()
        self._gate = threading.Lock()  # nothing is handed to a loop that may have ended
        self._stopping = False
        self._entered: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._main: asyncio.Task[None] | None = None
        self._leave = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin, and return once the context is entered. Raises what entering raises."""
        self._thread.start()
        _running.add(self)
        try:
            outcome(self._entered)
        except BaseException:
            self.stop_soon()
            raise

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a coroutine that is made in the loop returns; an interrupt cancels it."""
        self.check()
        call = Call(make)
        try:
            self._hand_over(call)
            return call.outcome()
        except CancelledError:
            raise ClientClosed("the client was closed") from None
        except BaseException:
            self.call_soon(call.drop)
            raise

    def _hand_over(self, call: Call[T]) -> None:
        with self._gate:
            if self._stopping:
                raise ClientClosed("the client was closed")
            self._loop.call_soon_threadsafe(call.begin, self._loop)

    def soon(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have a coroutine made and run in the loop, as `call_soon` does."""
        self.call_soon(lambda: self._keep(self._loop.create_task(work())))

    def stop(self) -> None:
        """Leave the context and wait until the thread has ended. Raises what leaving raises."""
        self.stop_soon()
        outcome(self._ended)
        self._thread.join()

    def stop_soon(self) -> None:
        """Let the context be left, without waiting."""
        with self._gate:
            self._stopping = True
        self.call_soon(self._end)

    def check(self) -> None:
        """Raise ClientClosed in a forked process, RuntimeError in the loop's own thread."""
        if os.getpid() != self._pid:
            raise ClientClosed(forked(self._pid))
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError("a blocking call in the client's own thread would wait for itself")

    def wait_ended(self, seconds: float) -> None:
        """Wait for the end, but no longer than that."""
        wait((self._ended,), seconds)

    @property
    def here(self) -> bool:
        """Whether it runs in this process."""
        return os.getpid() == self._pid

    def call_soon(self, call: Callable[[], object]) -> None:
        """Have something called in the loop, without waiting; not at all if it has ended.

        Takes no lock, so that what the garbage collector finds may call it in any place.
        """
        if self.here:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(call)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)  # the loop itself would not
        task.add_done_callback(self._tasks.discard)

    def _end(self) -> None:
        self._leave.set()
        if self._main is not None and not self._entered.done():
            self._main.cancel()

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._stay())
        except BaseException as raised:  # noqa: BLE001 - told to who waits for it, in `outcome`
            error = raised
        waiting = self._ended if self._entered.done() else self._entered
        if error is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(error)
        if not self._ended.done():
            self._ended.set_result(None)

    async def _stay(self) -> None:
        self._main = asyncio.current_task()
        async with self._context:
            self._entered.set_result(None)
            await self._leave.wait()


def forked(pid: int) -> str:
    """Say why nothing can be done in this process with what was opened in another."""
    return (
        f"this client was opened in process {pid}, and this is {os.getpid()}, forked off: "
        "a client is opened where it is used, in each process its own"
    )


@atexit.register
def _stop_all() -> None:
    """Close what a program has left open when it ends; a broker that is gone delays it little."""
    left = [each for each in _running if each.here]
    until = time.monotonic() + EXIT_SECONDS
    for each in left:
        each.stop_soon()
    for each in left:
        each.wait_ended(max(0.0, until - time.monotonic()))
