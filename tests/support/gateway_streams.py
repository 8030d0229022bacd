"""Gateways without sockets: an app over brokers in memory, and a caller that speaks ASGI itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aril import Connection
from aril.gateway.app import make_app
from aril.gateway.keys import hash_of
from aril.gateway.settings import GatewaySettings
from aril.gateway.site import Site
from aril.memory import MemoryBroker, MemoryTransport
from aril.schemas import encode_reply, reply_partition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from starlette.types import ASGIApp, Message

    from aril.schemas import ReplyRecord

PARTITIONS = 3
TENANTS = ("acme", "zeta")
KEYS = {"acme": "key-of-acme", "zeta": "key-of-zeta"}


def new_broker() -> MemoryBroker:
    """Return a broker with a reply topic for each tenant."""
    return MemoryBroker(
        reply_partitions=PARTITIONS, topics=[f"replies.{tenant}" for tenant in TENANTS]
    )


def put(broker: MemoryBroker, *records: ReplyRecord, tenant: str = "acme") -> None:
    """Append replies where their jobs' replies belong."""
    for record in records:
        partition = reply_partition(record.job, PARTITIONS)
        broker.append(
            partition, record.job.encode(), encode_reply(record), topic=f"replies.{tenant}"
        )


def place(broker: MemoryBroker, job: str, tenant: str = "acme") -> str:
    """Return the id of an answer to a job that is sent now."""
    partition = reply_partition(job, PARTITIONS)
    end = broker.topics[f"replies.{tenant}"][partition].end
    return f"{partition}.{end}.{job}"


@contextlib.asynccontextmanager
async def gateway(
    broker: MemoryBroker, *, inbox: int = 512, keys: Path | None = None, **told: Any
) -> AsyncIterator[Caller]:
    """Run a gateway over a connection of its own; without `keys` all are acme."""
    who: dict[str, Any] = (
        {"gateway_tenant": "acme"} if keys is None else {"gateway_keys": key_file(keys)}
    )
    settings = GatewaySettings(**{"gateway_keepalive_seconds": 0.2} | who | told)
    transport = MemoryTransport(broker)
    async with Connection("", transport=transport, inbox_events=inbox) as connection:
        site = Site(settings, connection)
        site.connected.set()
        watching = asyncio.create_task(site.watch())
        try:
            yield Caller(site)
        finally:
            watching.cancel()
            await asyncio.wait({watching})


def key_file(folder: Path) -> Path:
    """Write the keys of both tenants."""
    path = folder / "keys.toml"
    path.write_text(
        "".join(
            f'[[keys]]\nname = "{tenant}-web"\ntenant = "{tenant}"\nsha256 = "{hash_of(key)}"\n'
            for tenant, key in KEYS.items()
        )
    )
    return path


@dataclass
class Answer:
    """A response; `body` grows while it is open."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """Return what the body says."""
        return json.loads(self.body)

    def events(self) -> list[tuple[str, Any]]:
        """Return the kind and data of each server-sent event that has come whole."""
        found = []
        for block in self.body.decode().split("\n\n")[:-1]:
            fields = dict(line.partition(":")[::2] for line in block.split("\n"))
            if "data" in fields:
                found.append((fields.get("event", "").strip(), json.loads(fields["data"])))
        return found


class Caller:
    """Asks a gateway."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._app = make_app(site)

    async def get(self, path: str, *, tenant: str = "", **headers: str) -> Answer:
        """GET, and wait for the whole answer."""
        return await self.ask("GET", path, tenant=tenant, headers=headers)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        tenant: str = "",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Answer:
        """Wait for the whole answer."""
        async with self.open(method, path, tenant=tenant, headers=headers, body=body) as call:
            await call.ended()
            return call.answer

    def open(
        self,
        method: str,
        path: str,
        *,
        tenant: str = "",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Call:
        """Begin a call whose answer is looked at while it comes; leaving it hangs up."""
        sent = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        if tenant:
            sent["authorization"] = f"Bearer {KEYS[tenant]}"
        data = b"" if body is None else json.dumps(body).encode()
        if body is not None:
            sent |= {"content-type": "application/json", "content-length": str(len(data))}
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        return Call(self._app, scope, data)


class Call:
    """One request in flight. An async context manager."""

    def __init__(self, app: ASGIApp, scope: dict[str, Any], body: bytes) -> None:
        self.answer = Answer()
        self.stuck = asyncio.Event()
        self.stuck.set()  # cleared: the caller takes nothing more
        self._app, self._scope, self._body = app, scope, body
        self._left = asyncio.Event()
        self._grown = asyncio.Event()
        self._asked = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._left.set()
        self.stuck.set()
        assert self._task is not None
        await asyncio.wait_for(asyncio.shield(self._task), 10)

    async def ended(self) -> Answer:
        """Wait for the end."""
        assert self._task is not None
        await asyncio.wait_for(asyncio.shield(self._task), 10)
        return self.answer

    async def until(self, text: str) -> Answer:
        """Wait until something has come."""
        async with asyncio.timeout(10):
            while text.encode() not in self.answer.body:
                self._grown.clear()
                await self._grown.wait()
        return self.answer

    async def _run(self) -> None:
        await self._app(self._scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.stuck.wait()
        if message["type"] == "http.response.start":
            self.answer.status = message["status"]
            self.answer.headers = {
                name.decode(): value.decode() for name, value in message["headers"]
            }
        else:
            self.answer.body += message.get("body", b"")
        self._grown.set()


def texts(messages: Sequence[Any]) -> str:
    """Return what the messages of a stream say, resets withdrawn."""
    text = ""
    for each in messages:
        text = "" if each["kind"] == "reset" else text + each.get("text", "")
    return text
