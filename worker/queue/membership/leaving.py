"""How long a member tries to leave its group: it is a courtesy, the end of its session does it too.

A broker that halts takes what is sent and answers nothing. aiokafka waits for the answer as long as
for any other, 40 seconds; librdkafka for as long as it likes, in a thread that a process waits for
at its end, unless it is one of these.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger(__name__)

LEAVE_SECONDS: Final = 10.0

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")


async def said(goodbye: asyncio.Task[None]) -> bool:
    """Wait until a goodbye is said, or is not worth waiting for any more; return which it was.

    It goes on where it was not. Raises what it raises.
    """
    await asyncio.wait({goodbye}, timeout=LEAVE_SECONDS)
    if goodbye.done():
        await goodbye
        return True
    log.warning("group_not_left", why="no answer; the group goes on once our session has ended")
    return False


class DaemonThreads(Executor):
    """Runs each call in a thread of its own, for which the end of the process does not wait."""

    def submit(
        self, fn: Callable[ParamsT, ResultT], /, *args: ParamsT.args, **kwargs: ParamsT.kwargs
    ) -> Future[ResultT]:
        """Start a call; see `concurrent.futures.Executor`."""
        future: Future[ResultT] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whoever waits is told
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=call, name="librdkafka", daemon=True).start()
        return future
