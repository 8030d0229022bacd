"""An ASGI application called by hand: a caller that can be slow, or leave."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.types import ASGIApp, Message

WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class SentEvent:
    """One server-sent event, or a comment."""

    data: str = ""
    id: str | None = None
    comment: bool = False

    @property
    def json(self) -> Any:
        """What it says."""
        return json.loads(self.data)


@dataclass
class Exchange:
    """One request and what is sent in return. `async with` it; leaving it early is hanging up."""

    app: ASGIApp
    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    chunk: int = 1 << 30  # bytes of the body that arrive at a time
    leaves_at: int = 1 << 30  # bytes of the body behind which the caller is gone
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)
    ended: bool = False
    received: int = 0
    sends: int = 0

    def __post_init__(self) -> None:
        self.takes = asyncio.Event()  # whether the caller takes what is sent
        self.takes.set()
        self._gone = asyncio.Event()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        path, _, query = self.path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (name.lower().encode(), value.encode()) for name, value in self.headers.items()
            ],
            "server": ("test", 80),
            "client": ("test", 1),
        }
        self._task = asyncio.create_task(self._run(scope))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self.hang_up()
        await asyncio.wait_for(asyncio.wait({self._task}), WAIT_SECONDS)

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self.app(scope, self._receive, self._send)
        finally:
            self.ended = True
            self._news.set()

    def hang_up(self) -> None:
        """Leave."""
        self._gone.set()
        self.takes.set()

    async def _receive(self) -> Message:
        if self.received >= self.leaves_at:
            return {"type": "http.disconnect"}
        if self.received < len(self.body) or not self.received:
            part = self.body[self.received : self.received + self.chunk]
            self.received += max(1, len(part))
            return {
                "type": "http.request",
                "body": part,
                "more_body": self.received < len(self.body),
            }
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sends += 1
        await self.takes.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.answer_headers = {
                name.decode().lower(): value.decode() for name, value in message["headers"]
            }
        else:
            self.sent.append(message["body"])
            self.ended = not message.get("more_body")
        self._news.set()

    async def until(self) -> None:
        """Wait until something else has been sent, or all."""
        self._news.clear()
        await asyncio.wait_for(self._news.wait(), WAIT_SECONDS)

    async def begun(self) -> None:
        """Wait for the head of the answer."""
        while not self.status:
            await self.until()

    async def whole(self) -> bytes:
        """Wait for the end, and return the body."""
        while not self.ended:
            await self.until()
        assert self._task is not None
        await asyncio.wait({self._task}, timeout=WAIT_SECONDS)
        return b"".join(self.sent)

    async def json(self) -> Any:
        """Wait for the end, and return what the body says."""
        return json.loads(await self.whole())

    async def events(self) -> AsyncIterator[SentEvent]:
        """Give each event as it comes."""
        given = 0
        while True:
            events = parse_events(b"".join(self.sent))
            for each in events[given:]:
                yield each
            given = len(events)
            if self.ended and len(parse_events(b"".join(self.sent))) == given:
                return
            if not self.ended:
                await self.until()


def parse_events(body: bytes) -> list[SentEvent]:
    """Read whole events; what does not end yet is left out."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        if "" in fields:
            found.append(SentEvent(fields[""], comment=True))
        else:
            found.append(SentEvent(fields["data"], fields.get("id")))
    return found


async def call(
    app: ASGIApp,
    method: str,
    path: str,
    body: object = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> Exchange:
    """Ask and wait for all of the answer; `body` is made JSON unless it is bytes."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    told = ({"content-type": "application/json"} if body is not None else {}) | dict(headers or {})
    async with Exchange(app, method, path, raw, told) as exchange:
        await exchange.whole()
    return exchange
