"""How long records are handed out before everything else on the event loop has its turn."""

from __future__ import annotations

import asyncio
import time
from typing import Final

SLICE_SECONDS: Final = 0.01  # streams and heartbeats wait so long, and for the record in hand


class TimeSlice:
    """Gives way to the loop once a slice of time is used up."""

    def __init__(self) -> None:
        self._since = 0.0

    async def give_way(self) -> None:
        """Let all others have a turn, if it is time for that."""
        if time.perf_counter() - self._since >= SLICE_SECONDS:
            await asyncio.sleep(0)
            self._since = time.perf_counter()
