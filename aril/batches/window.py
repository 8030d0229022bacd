"""How many jobs may run at once: fewer while the service says that it has too many, then more."""

from __future__ import annotations

import asyncio
from typing import Final

SHRINK: Final = 0.75
GROW: Final = 0.1
"""Of a place, for each answer: back from half to the whole within some answers a place."""
CALM_SECONDS: Final = 1.0
"""One flood of refusals is one reason to shrink."""


class Window:
    """Places for jobs, of the running event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = float(most)
        self._used = 0
        self._room = asyncio.Event()
        self._until = 0.0
        self._shrunk = float("-inf")

    @property
    def size(self) -> int:
        """How many places there are now."""
        return int(self._size)

    @property
    def used(self) -> int:
        """How many are taken."""
        return self._used

    async def enter(self) -> None:
        """Wait for a place and take it."""
        while (wait := self._until - _now()) > 0 or self._used >= self.size:
            if wait > 0:
                await asyncio.sleep(wait)
            else:
                self._room.clear()
                await self._room.wait()
        self._used += 1

    def leave(self) -> None:
        """Give the place back."""
        self._used -= 1
        self._room.set()

    def answered(self) -> None:
        """Note that the service has answered a job."""
        self._size = min(self._most, self._size + GROW)
        self._room.set()

    def overloaded(self, seconds: float) -> None:
        """Note that it refused one and may take the next in `seconds`."""
        self._until = max(self._until, _now() + seconds)
        if _now() - self._shrunk >= CALM_SECONDS:
            self._shrunk = _now()
            self._size = max(1.0, self._size * SHRINK)


def _now() -> float:
    return asyncio.get_running_loop().time()
