"""A real worker with an engine that needs no model, and a place to die at.

    python -m tests.support.fault_worker

Settings come by `ARIL_*` as for any worker. `FAULT_KILL=point:count` kills the process with SIGKILL
the count-th time that it passes the point, `FAULT_HALT` likewise halts it with SIGSTOP;
`FAULT_CLOCK=seconds` puts its clock forward or back, `FAULT_CLOCK=seconds:every` there and back
again and again. `FAULT_PACE` is the engine's seconds a step, `FAULT_KILLER` the id of a job that
kills the process, `FAULT_RAISER` of one whose steps raise. `FAULT_STORE` is the file that tells of
trouble with the adapter store. `FAULT_BUG` breaks the worker: the harness has to notice. SIGUSR1
has it log where it is. All of it is put around the worker's methods here; the worker itself knows
nothing of it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import os
import random
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from aril.schemas import ClaimRecord, DoneRecord, TokensRecord, decode_reply
from aril.worker.app import Worker, run_worker
from aril.worker.queue.consumer import JobsConsumer
from aril.worker.replies.producer import LogWriter
from aril.worker.settings import load_settings
from tests.support.fault_bugs import BUGS
from tests.support.fault_engine import load_tagged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

POINTS = (
    "after_fetch",  # records are delivered, nothing is written of them
    "after_claim",  # claims are acknowledged, nothing was read back
    "mid_stream",  # tokens are on their way to the broker, or not yet
    "after_terminal",  # a terminal is acknowledged, its offset is not committed
    "in_revoke",  # partitions are being taken away
    "in_drain",  # told to stop, with jobs running
)
# A record on its way takes a millisecond or so: some of those killed have landed, others not.
ON_ITS_WAY_SECONDS = 0.003


def arm(point: str, count: int, number: signal.Signals) -> None:
    """Put one of the points around the worker's methods, and a signal to itself there."""
    if point not in POINTS:
        raise ValueError(f"no such point: {point}")
    passing = itertools.count(1)

    def die() -> None:
        os.kill(os.getpid(), number)

    def passed() -> bool:
        return next(passing) == count

    if point == "after_fetch":
        _arm_fetch(passed, die)
    elif point == "in_revoke":
        _arm_revoke(passed, die)
    elif point == "in_drain":
        _arm_drain(die)
    else:
        _arm_append(point, passed, die)


async def soon(die: Callable[[], None]) -> None:
    """End in the middle of what has just begun."""
    await asyncio.sleep(random.uniform(0, ON_ITS_WAY_SECONDS))
    die()


def _arm_fetch(passed: Callable[[], bool], die: Callable[[], None]) -> None:
    deliver = JobsConsumer._deliver_all

    async def patched(self: JobsConsumer, batches: dict[Any, list[Any]]) -> None:
        await deliver(self, batches)
        if batches and passed():
            die()

    JobsConsumer._deliver_all = patched  # type: ignore[method-assign]


def _arm_revoke(passed: Callable[[], bool], die: Callable[[], None]) -> None:
    revoke = JobsConsumer.taken

    async def patched(self: JobsConsumer, revoked: Any, *, lost: bool = False) -> None:
        if not self.states or not passed():
            return await revoke(self, revoked, lost=lost)
        task = asyncio.create_task(revoke(self, revoked, lost=lost))
        await soon(die)
        return await task

    JobsConsumer.taken = patched  # type: ignore[method-assign,assignment]


def _arm_drain(die: Callable[[], None]) -> None:
    drain = Worker._drain

    async def patched(self: Worker, consumer: Any, lifecycle: Any) -> None:
        task = asyncio.create_task(drain(self, consumer, lifecycle))
        await soon(die)
        await task

    Worker._drain = patched  # type: ignore[method-assign]


def _arm_append(point: str, passed: Callable[[], bool], die: Callable[[], None]) -> None:
    append = LogWriter.append_all
    wanted = {
        "after_claim": ClaimRecord,
        "mid_stream": TokensRecord,
        "after_terminal": DoneRecord,
    }[point]

    async def patched(
        self: LogWriter,
        topic: str,
        partition: int | None,
        records: Sequence[tuple[bytes, bytes | None]],
        headers: Sequence[tuple[str, bytes | None]] = (),
        **limits: float,
    ) -> list[int]:
        # Dead letters, too, come this way: they have headers.
        fatal = (
            not headers
            and any(isinstance(decode_reply(value or b""), wanted) for _, value in records)
            and passed()
        )
        if fatal and point == "mid_stream":
            sent = append(self, topic, partition, records, headers, **limits)
            sending = asyncio.create_task(sent)
            await soon(die)
            return await sending
        offsets = await append(self, topic, partition, records, headers, **limits)
        if fatal:
            die()
        return offsets

    LogWriter.append_all = patched  # type: ignore[method-assign]


def _set_clock(seconds: float, every: float) -> None:
    """Tell a wrong time of day; the loop's own clock goes on as ever."""
    right, begun = time.time, time.monotonic()

    def shifted() -> float:
        back = every > 0 and int((time.monotonic() - begun) / every) % 2 == 0
        return right() + (0 if back else seconds)

    time.time = shifted


def _tell_where(*_: object) -> None:
    """Log where all threads and tasks are: of a worker that does not end."""
    faulthandler.dump_traceback(all_threads=True)
    for task in asyncio.all_tasks():
        task.print_stack()


def main() -> int:
    """Run one worker."""
    signal.signal(signal.SIGUSR1, _tell_where)
    for name, number in (("FAULT_KILL", signal.SIGKILL), ("FAULT_HALT", signal.SIGSTOP)):
        if fatal := os.environ.get(name):
            point, _, count = fatal.partition(":")
            arm(point, int(count), number)
    if told := os.environ.get("FAULT_CLOCK"):
        seconds, _, every = told.partition(":")
        _set_clock(float(seconds), float(every or 0))
    if bug := os.environ.get("FAULT_BUG"):
        BUGS[bug]()
    return run_worker(load_settings().settings, load=load_tagged)


if __name__ == "__main__":
    sys.exit(main())
