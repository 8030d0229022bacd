"""What parts of a worker's event loop cost, in CPU time of its thread; on for benchmarks alone.

The parts are put around aiokafka's methods and ours in `benchmarks.fleet_real.worker`; the worker
knows nothing of it.
"""

from __future__ import annotations

import functools
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator


class LoopTime:
    """The CPU time of everything that is put under it; what is within counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._within = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is done meanwhile."""
        if self._within:
            yield
            return
        self._within, begun = True, time.thread_time()
        try:
            yield
        finally:
            self._within = False
            self.seconds += time.thread_time() - begun

    def around(self, owner: type, name: str) -> None:
        """Count the steps of a coroutine method of a class, and not what it waits for."""
        method = getattr(owner, name)

        @functools.wraps(method)
        async def counted(*arguments: Any, **named: Any) -> Any:
            return await _Steps(self, method(*arguments, **named))

        setattr(owner, name, counted)


class _Steps:
    """Awaits a coroutine, and has the time of each of its steps counted."""

    def __init__(self, spent: LoopTime, work: Coroutine[Any, Any, Any]) -> None:
        self._spent = spent
        self._work = work

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Awaitable[Any]] = functools.partial(self._work.send, None)
        while True:
            with self._spent.running():
                try:
                    waits_for = step()
                except StopIteration as end:
                    return end.value
            try:
                answer = yield waits_for
            except BaseException as error:  # noqa: BLE001 - it is the coroutine's
                step = functools.partial(self._work.throw, error)
            else:
                step = functools.partial(self._work.send, answer)
