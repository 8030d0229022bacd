"""Jobs that a worker which has left the group still runs to their ends.

They are its own for as long as it said, and as long as something comes in their reply logs: what
stands still for a look is over, or its worker has died after all. Then it is taken over like any
other, which finds out.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.worker.stages import Stage
from aril.worker.takeover.readback import ReadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.worker.job import Entry, Partition
    from aril.worker.takeover.readback import LogReader

LOOK_SECONDS: Final = 5.0


class _Left(NamedTuple):
    until: float
    over: Callable[[Entry], None]


class Elsewhere:
    """The jobs that are left to others. Lives on the event loop."""

    def __init__(self, reader: LogReader) -> None:
        """Prepare; `reader` reads the reply logs."""
        self._reader = reader
        self._left: dict[Entry, _Left] = {}
        self._ends: dict[Partition, int] = {}  # of the logs, when they were last looked at
        self._looking: asyncio.Task[None] | None = None

    def leave(self, entry: Entry, until: float, over: Callable[[Entry], None]) -> None:
        """Leave a job alone until then, by the monotonic clock, or until its log stands still.

        `over` has it then, if it still waits.
        """
        self._left[entry] = _Left(until, over)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_often(), name="aril-elsewhere")

    async def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _look_often(self) -> None:
        try:
            while self._left:
                await asyncio.sleep(LOOK_SECONDS)
                await self.look()
        finally:
            self._looking = None
            self._ends.clear()

    async def look(self) -> None:
        """Let go what stands still, or has had its time."""
        logs = {entry.reply_log for entry in self._left}
        ends = dict(zip(logs, await asyncio.gather(*map(self._end_of, logs)), strict=True))
        before, self._ends = self._ends, {log: end for log, end in ends.items() if end is not None}
        now = time.monotonic()
        for entry, (until, over) in [*self._left.items()]:
            if entry.stage is not Stage.WAITING:  # it is over, or ends
                del self._left[entry]
                continue
            end = ends.get(entry.reply_log)
            still = end is not None and end == before.get(entry.reply_log)
            if still or now >= until:
                del self._left[entry]
                over(entry)

    async def _end_of(self, log: Partition) -> int | None:
        try:
            return await self._reader.end_of(log)
        except ReadError:
            return None  # nothing is known: its time counts
