"""The half of the Durable Streams protocol that a gateway has not, so that a suite can be run.

A gateway's streams are written by workers. Here PUT and POST become the records that a worker would
have written for a job: a message is the text of a tokens record, closing is the `done`. What is
read is the gateway's own answer, but that messages are taken out of the texts again and the
stream's content type is told: statuses, headers, offsets, cursors, waiting and events are as it
gave them.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from aril.gateway.places import new_job
from aril.schemas import TokensRecord
from tests.support.fake_worker import FIRST, WORKER, done
from tests.support.gateway_streams import place, put

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from aril.memory import MemoryBroker

JSON: Final = "application/json"
RECORD_CHARS: Final = 100_000
MOST_BYTES: Final = 5_000_000
NOBODY: Final = "0.999999999.nobody"


@dataclass
class Written:
    """A stream as its writer knows it."""

    name: str
    job: str
    kind: str
    count: int = 0
    closed: bool = False

    @property
    def is_json(self) -> bool:
        """Whether its messages are JSON."""
        return self.kind.partition(";")[0].strip().lower() == JSON


class DurableWriter:
    """An ASGI app around a gateway's."""

    def __init__(self, gateway: ASGIApp, broker: MemoryBroker) -> None:
        self._gateway = gateway
        self._broker = broker
        self._streams: dict[str, Written] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write, or let the gateway answer."""
        if scope["type"] != "http" or scope["method"] == "OPTIONS":
            await self._gateway(scope, receive, send)
        elif scope["method"] in {"GET", "HEAD"}:
            await self._read(scope, receive, send, self._streams.get(scope["path"]))
        else:
            headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
            body = await _body_of(receive)
            response = await self._write(scope["method"], scope["path"], headers, body)
            response.headers["x-content-type-options"] = "nosniff"
            await response(scope, receive, send)

    async def _write(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> Response:
        stream = self._streams.get(path)
        closes = headers.get("stream-closed", "").lower() == "true"
        if method == "PUT":
            return await self._create(path, headers, body, closes=closes)
        if stream is None:
            return Response(status_code=404)
        if method == "DELETE":
            del self._streams[path]
            return Response(status_code=204)
        if stream.closed:
            return await self._told(stream, 204 if closes and not body else 409)
        if fault := _fault(stream, headers.get("content-type"), body, closes=closes):
            return Response(status_code=fault)
        self._append(stream, _messages(stream, body) or [], closes=closes)
        return await self._told(stream, 204)

    async def _create(
        self, path: str, headers: dict[str, str], body: bytes, *, closes: bool
    ) -> Response:
        kind = headers.get("content-type", "application/octet-stream")
        known = self._streams.get(path)
        if known is not None:
            same = _type(kind) == _type(known.kind) and closes == known.closed
            return await self._told(known, 200 if same else 409)
        job = new_job("acme")
        stream = Written(place(self._broker, job), job, kind)
        messages = _messages(stream, body)
        if messages is None:
            return Response(status_code=400)
        self._streams[path] = stream
        self._append(stream, messages, closes=closes)
        told = await self._told(stream, 201)
        told.headers["location"] = f"http://{headers['host']}{path}"
        return told

    def _append(self, stream: Written, messages: list[str], *, closes: bool) -> None:
        for text in messages:
            record = TokensRecord(
                job=stream.job,
                epoch=FIRST,
                worker=WORKER,
                index=stream.count,
                ids=(0,),
                text=text,
            )
            stream.count += 1
            put(self._broker, record)
        if closes:
            stream.closed = True
            put(self._broker, done(stream.job, stream.count))

    async def _told(self, stream: Written, status: int) -> Response:
        """Return a response with the place that the gateway has the stream's end at."""
        head: dict[str, str] = {}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                head.update({name.decode(): value.decode() for name, value in message["headers"]})

        async def receive() -> Message:
            await asyncio.Event().wait()  # it stays until it is answered
            return {"type": "http.disconnect"}

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "HEAD",
            "scheme": "http",
            "path": f"/v1/streams/{stream.name}",
            "query_string": b"",
            "root_path": "",
            "headers": [],
        }
        await self._gateway(scope, receive, send)
        headers = {"content-type": stream.kind, "stream-next-offset": head["stream-next-offset"]}
        if stream.closed:
            headers["stream-closed"] = "true"
        return Response(status_code=status, headers=headers)

    async def _read(
        self, scope: Scope, receive: Receive, send: Send, stream: Written | None
    ) -> None:
        name = NOBODY if stream is None else stream.name
        inner = {**scope, "path": f"/v1/streams/{name}", "raw_path": b""}
        reader = send if stream is None else _Unwrapping(stream, send)
        await self._gateway(inner, receive, reader)


class _Unwrapping:
    """Takes messages out of the texts that they were put in, in a response of the gateway."""

    def __init__(self, stream: Written, send: Send) -> None:
        self._stream = stream
        self._send = send
        self._start: Message = {}
        self._live = False
        self._ok = False
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._live:
            await self._pass_on(message)
        elif not self._ok:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._end()

    async def _begin(self, message: Message) -> None:
        self._start = message
        headers = dict(message["headers"])
        self._live = headers.get(b"content-type", b"").startswith(b"text/event-stream")
        self._ok = message["status"] == 200 and not self._live
        if not self._ok:
            await self._send(message)

    async def _end(self) -> None:
        body = _join(self._stream, json.loads(self._body)) if self._body else b""
        headers = [
            (name, value)
            for name, value in self._start["headers"]
            if name not in {b"content-type", b"content-length"}
        ]
        headers.append((b"content-type", self._stream.kind.encode()))
        headers.append((b"content-length", str(len(body)).encode()))
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _pass_on(self, message: Message) -> None:
        self._body += message.get("body", b"")
        *blocks, self._body = self._body.split(b"\n\n")
        told = b"".join(self._event(block) for block in blocks)
        await self._send({**message, "body": told})

    def _event(self, block: bytes) -> bytes:
        if not block.startswith(b"event: data\n"):
            return block + b"\n\n"
        messages = json.loads(block.partition(b"\ndata:")[2])
        if all(each["kind"] == "done" for each in messages):
            return b""
        data = _join(self._stream, messages)
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        return b"event: data\n" + b"".join(b"data:" + line + b"\n" for line in lines) + b"\n"


def _fault(stream: Written, kind: str | None, body: bytes, *, closes: bool) -> int | None:
    """Return the status of an append that is refused."""
    if not body:
        return None if closes else 400
    if kind is None or not _messages(stream, body):
        return 400
    if _type(kind) != _type(stream.kind):
        return 409
    return 413 if len(body) > MOST_BYTES else None


def _messages(stream: Written, body: bytes) -> list[str] | None:
    """Return a body's messages as texts of records; None for what is no JSON and should be."""
    if not body:
        return []
    if not stream.is_json:
        text = body.decode("latin-1")  # a character a byte
        return [text[at : at + RECORD_CHARS] for at in range(0, len(text), RECORD_CHARS)]
    try:
        said = json.loads(body)
    except ValueError:
        return None
    return [json.dumps(each) for each in (said if isinstance(said, list) else [said])]


def _join(stream: Written, messages: list[Any]) -> bytes:
    parts: list[str] = [each["text"] for each in messages if each["kind"] == "tokens"]
    if stream.is_json:
        return f"[{','.join(parts)}]".encode()
    return "".join(parts).encode("latin-1")


def _type(kind: str) -> str:
    return kind.partition(";")[0].strip().lower()


async def _body_of(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body
