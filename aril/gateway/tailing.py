"""One job's log, read for one request: counted, ended when the gateway ends, measured."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from aril.gateway.reading import ends_jobs
from aril.position import START, Position
from aril.schemas import TokensEvent
from aril.tail import Tail

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from aril.gateway.keys import Caller
    from aril.gateway.reading import Begun
    from aril.gateway.site import Site
    from aril.stream import ResumeToken
    from aril.tail import Step


class Tailing:
    """An async context manager. Raises as `Tail`, and as `Site.reading`.

    `kept` says that the job runs on whoever leaves. A reader that is `timed` is ended like a chat's
    when nothing has come for too long; all others may wait.
    """

    def __init__(
        self,
        site: Site,
        caller: Caller,
        place: ResumeToken,
        position: Position = START,
        *,
        begun: Begun | None = None,
        kept: bool = True,
        sent: str | None = None,
        timed: bool = False,
    ) -> None:
        """Prepare; with `begun` it is counted as an answer, how it has begun and ended.

        `sent` is the hash of the job's record, for its sender.
        """
        client = site.client(caller.tenant)
        self.job = place.job
        self.kept = kept
        self.resumable = False  # its reader was told where it stands
        self.waiting_since: float | None = None
        self.tail = Tail(client.link, client.replies_topic, place, position, sent=sent)
        self._site, self._caller, self._begun = site, caller, begun
        self._timed = timed
        self._counted: AbstractContextManager[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._asked_at = self._loop.time()
        self._first_at: float | None = None
        self._last_at = 0.0
        self._tokens = 0

    async def __aenter__(self) -> Self:
        counted = self._site.reading(caller=self._caller, reader=self)
        counted.__enter__()
        self._counted = counted
        try:
            await self.tail.__aenter__()
        except BaseException as error:
            self._close(failed=not isinstance(error, asyncio.CancelledError))
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.tail.__aexit__(kind, error, trace)
        self.kept = self.kept or not ends_jobs(error)
        self._close(failed=isinstance(error, Exception))

    def fail(self, error: Exception, *, keep: bool = False) -> None:
        """End it with `error`, behind what has arrived; with `keep` for who can go on elsewhere."""
        self.kept = self.kept or (keep and self.resumable)
        self.tail.fail(error)

    async def more(self, seconds: float = 0.0) -> list[Step]:
        """Return what `Tail.more` does."""
        self.waiting_since = self._loop.time() if self._timed else None
        try:
            steps = await self.tail.more(seconds)
        finally:
            self.waiting_since = None
        came = sum(
            len(event.ids)
            for step in steps
            for event in step.events
            if isinstance(event, TokensEvent)
        )
        if came:
            self._site.metrics.tokens.inc(came)
            self._tokens += came
            self._last_at = self._loop.time()
            self._first_at = self._first_at or self._last_at
        return steps

    def _close(self, *, failed: bool) -> None:
        if self._counted is not None:
            self._counted.__exit__(None, None, None)
            self._counted = None
        if self._begun is None:
            return
        ended, first = self.tail.ended, self._first_at
        self._site.metrics.read(
            begun=self._begun,
            ended=["failed" if failed else "done" if ended else "left"],
            first=None if first is None else first - self._asked_at,
            per_token=(self._last_at - first) / (self._tokens - 1)
            if ended and first is not None and self._tokens > 1
            else None,
        )
