"""Jobs that are being taken over ahead of their places, and what of that a tenant may hold.

A reply log that was well until now is trusted for as long as a request may take. So that nobody
else waits for it, a tenant has no more claims under way than there are rows; and one that is not
answered in a moment counts for its own tenant only.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from aril.worker.job import Entry

CLAIMS_PER_ROW: Final = 8  # of all tenants: that many tenants' logs may turn silent at once
SLOW_SECONDS: Final = 0.25  # a claim takes milliseconds, a long log to read back more


class ClaimsInFlight:
    """Claims under way of one worker. Lives on the event loop."""

    def __init__(self, rows: int, *, changed: Callable[[], None]) -> None:
        """Prepare; `changed` is called as a claim becomes slow."""
        self._rows = rows
        self._changed = changed
        self._quick: dict[Entry, asyncio.TimerHandle] = {}
        self._slow: set[Entry] = set()
        self._of: Counter[str] = Counter()  # by tenant
        self._crowding: set[str] = set()

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._quick or entry in self._slow

    @property
    def waited_for(self) -> bool:
        """Whether there are such as are expected to be answered in a moment."""
        return bool(self._quick)

    @property
    def full(self) -> bool:
        """Whether no more should be begun, whoever's."""
        return len(self._quick) >= CLAIMS_PER_ROW * self._rows

    @property
    def crowding(self) -> AbstractSet[str]:
        """The tenants that have to wait for claims of their own."""
        return self._crowding

    def add(self, entry: Entry) -> None:
        """Note that a job is being claimed."""
        self._count(entry.tenant, 1)
        loop = asyncio.get_running_loop()
        self._quick[entry] = loop.call_later(SLOW_SECONDS, self._is_slow, entry)

    def discard(self, entry: Entry) -> bool:
        """Note that it is claimed, or that this came to nothing; False if it was not here."""
        if (timer := self._quick.pop(entry, None)) is not None:
            timer.cancel()
        elif entry in self._slow:
            self._slow.discard(entry)
        else:
            return False
        self._count(entry.tenant, -1)
        return True

    def _count(self, tenant: str, change: int) -> None:
        self._of[tenant] += change
        if self._of[tenant] >= self._rows:
            self._crowding.add(tenant)
        else:
            self._crowding.discard(tenant)
        if not self._of[tenant]:
            del self._of[tenant]

    def _is_slow(self, entry: Entry) -> None:
        del self._quick[entry]
        self._slow.add(entry)
        self._changed()
