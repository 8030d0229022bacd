"""`/v1/files` and `/v1/batches` of a gateway in this process, as a client uses them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from tests.support.asgi import Exchange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.support.gateway_site import Gateway

BOUNDARY: Final = "the-boundary"
OVER: Final = {"completed", "failed", "cancelled", "expired"}
WAIT_SECONDS: Final = 60.0


def form(parts: Sequence[tuple[str, bytes, str | None]]) -> bytes:
    """Write a multipart body of names, contents and, for files, their names."""
    written = b""
    for name, content, filename in parts:
        told = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
        written += f"--{BOUNDARY}\r\ncontent-disposition: {told}\r\n\r\n".encode()
        written += content + b"\r\n"
    return written + f"--{BOUNDARY}--\r\n".encode()


async def post_form(
    gateway: Gateway,
    body: bytes,
    *,
    chunk: int = 1 << 30,
    headers: Mapping[str, str] | None = None,
) -> Exchange:
    """Upload a body, so many bytes at a time."""
    told = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"} | dict(headers or {})
    async with Exchange(gateway.app, "POST", "/v1/files", body, told, chunk) as exchange:
        await exchange.whole()
    return exchange


async def upload(
    gateway: Gateway, content: bytes, *, headers: Mapping[str, str] | None = None
) -> str:
    """Upload a file for a batch; return its id."""
    body = form([("purpose", b"batch", None), ("file", content, "in.jsonl")])
    exchange = await post_form(gateway, body, headers=headers)
    told = await exchange.json()
    assert exchange.status == 200, told
    name: str = told["id"]
    return name


def jsonl(*lines: object) -> bytes:
    """Write lines."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def wanted(file: str, **others: Any) -> dict[str, Any]:
    """Make the body that asks for a batch of a file."""
    endpoint = "/v1/chat/completions"
    return {"input_file_id": file, "endpoint": endpoint, "completion_window": "24h"} | others


async def start(gateway: Gateway, *lines: object, **others: Any) -> dict[str, Any]:
    """Upload lines and make a batch of them; return it."""
    body = wanted(await upload(gateway, jsonl(*lines)), **others)
    exchange = await gateway.call("POST", "/v1/batches", body)
    told: dict[str, Any] = await exchange.json()
    assert exchange.status == 200, told
    assert told["status"] == "validating"
    return told


async def batch_of(gateway: Gateway, name: str) -> dict[str, Any]:
    """Return how a batch stands."""
    told: dict[str, Any] = await (await gateway.call("GET", f"/v1/batches/{name}")).json()
    return told


async def over(gateway: Gateway, name: str) -> dict[str, Any]:
    """Wait for a batch's end, and return it."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (told := await batch_of(gateway, name))["status"] not in OVER:  # noqa: ASYNC110 - as a client does
            await asyncio.sleep(0.02)
    return told


async def records(gateway: Gateway, file: str | None) -> list[Any]:
    """Read a file of results; none where there is none."""
    if file is None:
        return []
    exchange = await gateway.call("GET", f"/v1/files/{file}/content")
    assert exchange.status == 200
    return [json.loads(line) for line in (await exchange.whole()).decode().splitlines()]
