"""A job's events, record by record and each with the position behind it, from any position on.

What `Client.stream` gives a caller who stays, this gives to callers who come and go: first what is
there, up to the log's end at the moment of asking, then what comes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Self

from aril.errors import BadToken, ClientClosed, StreamLost
from aril.position import START, Position
from aril.router import Inbox
from aril.schemas.reader import BEFORE_ALL
from aril.transport import Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from aril.link import Link
    from aril.schemas import Event, ReplyRecord
    from aril.stream import ResumeToken


class Step(NamedTuple):
    """What one record of the log brought: one event, or a reset and what came in its place."""

    events: tuple[Event, ...]
    position: Position
    """Behind it."""


class Beyond(BadToken):
    """Behind the end of the log: no reader was ever given that place."""


class Tail:
    """An async context manager. Raises `BadToken`, `StreamLost`, `BrokerUnavailable` on entry.

    Leaving it ends nobody's job. `token` says whose events, and where the replies begin; what it
    counts is not looked at.
    """

    def __init__(
        self,
        link: Link,
        topic: str,
        token: ResumeToken,
        position: Position = START,
        *,
        sent: str | None = None,
    ) -> None:
        """Prepare; `sent` is the hash of the job's record, for its sender (`Stream.sent`)."""
        self._link = link
        self._token = token
        self._place = Place(topic, token.partition)
        self._news = asyncio.Event()
        self._position = position
        self._listening = False
        self._inbox = _Steps(
            token.job,
            place=self._place,
            position=token.reply_from if position.at_start else position.offset,
            limit=link.inbox_events,
            limit_bytes=link.inbox_bytes,
            after=position,
            sent=sent,
            wake=self._news.set,
        )

    async def __aenter__(self) -> Self:
        if self._token.partition >= await self._link.partitions(self._place.topic):
            raise Beyond(f"the reply topic has no partition {self._token.partition}")
        if self.ended:
            return self
        transport, at = self._link.transport, self._inbox.position
        start = await transport.log_start(self._place)
        end = await transport.log_end(self._place)
        if at > end:
            raise Beyond(f"the log ends at {end}, before {at}")
        if at < start:
            raise StreamLost(f"replies from offset {at} are gone (the log holds {start} to {end})")
        if at < end:  # else all is given before anything is read
            self._listen()
            self._link.router.seek(self._inbox, end)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._link.router.remove(self._inbox)
        self._inbox.failure = None  # its traceback holds who has raised it: us

    @property
    def position(self) -> Position:
        """Behind the last step that was given."""
        return self._position

    @property
    def reply_from(self) -> int:
        """Where the replies begin: elsewhere than the token said, where the job was sent again."""
        return self._inbox.start

    @property
    def begun(self) -> bool:
        """Whether a worker has the job: one has written to it, though it be only that."""
        return self._inbox.stream.epoch > BEFORE_ALL

    @property
    def ended(self) -> bool:
        """Whether the end has been given."""
        return self._position.ended

    @property
    def caught_up(self) -> bool:
        """Whether all has been given that was there when this was entered, and nothing waits."""
        inbox = self._inbox
        return inbox.goal is None and not inbox.waiting and not inbox.stalled

    async def more(self, seconds: float = 0.0) -> list[Step]:
        """Return what has come, at least one step; for what was there, wait as long as it takes.

        [] once that has been given and nothing has come for so many seconds, and after the end.
        Raises `StreamLost`, `JobConflict`, `BrokerUnavailable`, `ReplyUnreadable`, `ClientClosed`.
        """
        inbox, loop = self._inbox, asyncio.get_running_loop()
        until: float | None = None
        while not self.ended:
            if inbox.waiting:
                return self._take()
            if inbox.failure is not None:
                raise inbox.failure
            self._news.clear()
            if not self.caught_up:
                await self._news.wait()
                continue
            until = until or loop.time() + seconds
            if loop.time() >= until:
                break
            self._listen()
            try:
                async with asyncio.timeout_at(until):
                    await self._news.wait()
            except TimeoutError:
                break
        return []

    def fail(self, error: Exception) -> None:
        """Have `more` raise `error` behind what has come."""
        self._inbox.fail(error)

    def _take(self) -> list[Step]:
        steps = self._inbox.steps()
        self._position = steps[-1].position
        self._link.router.taken(self._inbox)
        return steps

    def _listen(self) -> None:
        if self._link.closing:
            raise ClientClosed("the connection is being closed")
        if not self._listening:
            self._listening = True
            self._link.router.add(self._inbox)


class _Steps(Inbox):
    """Keeps events by the record that brought them."""

    def __init__(
        self,
        job: str,
        *,
        place: Place,
        position: int,
        limit: int,
        limit_bytes: int,
        after: Position,
        sent: str | None,
        wake: Callable[[], None],
    ) -> None:
        super().__init__(
            job,
            place=place,
            position=position,
            limit=limit,
            limit_bytes=limit_bytes,
            sent=sent,
            wake=wake,
        )
        self.stream = after.stream()
        self._fresh = after.at_start
        self._waiting: deque[Step] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def steps(self) -> list[Step]:
        """Return what has not been taken, as taken."""
        steps = [*self._waiting]
        self._waiting.clear()
        self._bytes = 0
        return steps

    @property
    def _nothing_seen(self) -> bool:
        return self._fresh

    def _fold(self, reply: ReplyRecord, size: int) -> None:
        if events := self.stream.feed(reply):
            self._fresh = False
            self._bytes += size
            self._waiting.append(Step(events, Position.behind(self.stream, self.position)))
            self._wake()
