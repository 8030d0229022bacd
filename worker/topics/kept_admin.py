"""An admin whose connection is kept from one look at topics to the next, as long as it answers.

In a large cluster nearly every job is a tenant's first on a worker for a while: each would wait for
a connection of its own, which costs the event loop more than what is asked on it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aril.worker.topics.admin import TopicAdmin
    from aril.worker.topics.contract import Finding


class KeptAdmin:
    """Judges topics. Lives on the event loop."""

    def __init__(self, make: Callable[[], TopicAdmin]) -> None:
        """Prepare; an admin is made when something is asked."""
        self._make = make
        self._kept: tuple[TopicAdmin, AsyncExitStack] | None = None

    async def judge_some(self, names: Iterable[str]) -> tuple[list[Finding], set[str]]:
        """See `TopicAdmin.judge_some`. After an error, or when given up, it connects anew."""
        kept = self._kept
        if kept is None:
            held = AsyncExitStack()
            kept = await held.enter_async_context(self._make()), held
            if self._kept is not None:  # two looks began at once: the first one's is kept
                await held.aclose()
                kept = self._kept
            self._kept = kept
        try:
            return await kept[0].judge_some(names)
        except BaseException:
            if self._kept is kept:
                await self.close()
            raise

    async def close(self) -> None:
        """Disconnect; harmless where nothing was asked."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept[1].aclose()
