"""One call from a thread into a loop of another: the caller waits, and may be interrupted any time.

`asyncio.run_coroutine_threadsafe` will not do: Ctrl-C between its last line and the caller's next
one would leave a coroutine running that nobody knows. Here the caller has the call in hand before
the loop has.
"""

from __future__ import annotations

from concurrent.futures import CancelledError, Future, wait
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

# Where a wait without end cannot be interrupted (Windows), Ctrl-C is heard after as long.
WAIT_SECONDS: Final = 1.0


class Call(Generic[T]):
    """A coroutine that is made and run in a loop; `begin` and `drop` are called there."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._make = make
        self._future: Future[T] = Future()
        self._task: asyncio.Task[T] | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the coroutine and a task of it."""
        try:
            self._task = loop.create_task(self._make())
        except BaseException as error:  # noqa: BLE001 - told to the caller
            self._future.set_exception(error)
        else:
            self._task.add_done_callback(self._tell)

    def drop(self) -> None:
        """Cancel what has begun: the caller has gone."""
        if self._task is not None:
            self._task.cancel()

    def outcome(self) -> T:
        """Wait; return or raise what the coroutine does, CancelledError if it was cancelled."""
        return outcome(self._future)

    def _tell(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._future.set_exception(CancelledError())  # `cancel` would not wake who waits
        elif (error := task.exception()) is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(task.result())


def outcome(future: Future[T]) -> T:
    """Wait for a future in a way that Ctrl-C ends everywhere; return or raise what it brings."""
    while not future.done():
        wait((future,), WAIT_SECONDS)
    return future.result()
