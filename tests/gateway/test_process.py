"""`aril gateway` as a process on a real broker: starts, serves, drains, and what ends it."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from aril.gateway.keys import hash_of
from tests.support.asgi import parse_events
from tests.support.gateway_process import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.aril.conftest import Cluster, RunAril


pytestmark = pytest.mark.kafka
KEY = "aril-a-key-of-the-tests"
ASKED: dict[str, Any] = {"model": "aril", "prompt": "one two three", "stream": True}


@pytest.fixture
def settings(cluster: Cluster, tmp_path: Path) -> dict[str, Any]:
    """Return settings of a gateway on the cluster, for acme with a key."""
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[keys]]\nname = "web"\ntenant = "acme"\nsha256 = "{hash_of(KEY)}"\n')
    contract = cluster.contract
    return {
        "bootstrap": cluster.bootstrap,
        "jobs_topic": contract.jobs_topic,
        "replies_prefix": contract.replies_prefix,
        "gateway_keys": keys,
        "gateway_drain_seconds": 1.5,
        "gateway_access_log": True,
    }


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Return a client that has the key."""
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        yield session


async def test_it_serves_and_tells(
    cluster: Cluster,
    tmp_path: Path,
    settings: dict[str, Any],
    http: aiohttp.ClientSession,
) -> None:
    """A stream, the whole by its id, metrics, the log; no key and no prompt in either."""
    async with GatewayProcess("one", tmp_path, **settings) as gateway, cluster.worker():
        async with http.post(f"{gateway.url}/v1/completions", json=ASKED) as answer:
            assert answer.status == 200
            *events, last = parse_events(await answer.read())
        assert last.data == "[DONE]"
        assert "".join(each.json["choices"][0]["text"] for each in events) == "one two three"
        where = f"{gateway.url}/v1/completions/{events[0].json['id']}"
        async with http.get(where) as answer:
            assert (await answer.json())["choices"][0]["text"] == "one two three"
        async with aiohttp.ClientSession() as stranger, stranger.get(where) as refused:
            assert refused.status == 401
        assert await gateway.metric("aril_gateway_tokens_total") == 6
        _, page = await gateway.probe("/metrics")
        assert 'aril_gateway_requests_total{method="POST",route="/v1/completions"' in page
        assert "process_resident_memory_bytes" in page
        assert await gateway.stop() == 0
    log = gateway.log.read_text()
    assert " info ready " in log
    assert "route=/v1/completions status=200" in log
    assert "key=web" in log
    for secret in (KEY, "two three", hash_of(KEY)):
        assert secret not in log
        assert secret not in page


async def test_a_drain(
    cluster: Cluster,
    tmp_path: Path,
    settings: dict[str, Any],
    http: aiohttp.ClientSession,
) -> None:
    """Not ready, no new requests; open streams get their time, then go on at another gateway."""
    settings |= {"gateway_drain_seconds": 3.0}  # at 0.4 a word: enough for one, not for the other
    asked = ASKED | {"prompt": " ".join(["word"] * 12)}
    async with (
        GatewayProcess("one", tmp_path, **settings) as one,
        GatewayProcess("two", tmp_path, **settings) as two,
        cluster.worker() as worker,
    ):
        worker.pause = 0.4
        async with http.post(f"{one.url}/v1/completions", json=asked) as answer:
            first = await answer.content.readuntil(b"\n\n")
            quick = await http.post(f"{one.url}/v1/completions", json=ASKED)
            one.signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            assert (await one.probe("/readyz"))[0] == 503
            assert (await one.probe("/livez"))[0] == 200
            async with http.post(f"{one.url}/v1/completions", json=ASKED) as late:
                assert late.status == 503
                assert late.headers["x-should-retry"] == "true"
            assert b"[DONE]" in await quick.read()
            rest = await answer.read()
        *given, error = parse_events(first + rest)
        assert error.json["error"]["code"] == "unavailable"
        assert await one.wait() == 0
        last = {"last-event-id": str(given[-1].id)}
        async with http.post(f"{two.url}/v1/completions", json=asked, headers=last) as answer:
            behind = parse_events(await answer.read())
        texts = [each.json["choices"][0]["text"] for each in given + behind[:-1]]
        assert "".join(texts) == asked["prompt"]
        assert not worker.cancelled


async def test_a_second_signal_stops_at_once(
    cluster: Cluster,
    tmp_path: Path,
    settings: dict[str, Any],
    http: aiohttp.ClientSession,
) -> None:
    """Whatever is open."""
    settings |= {"gateway_drain_seconds": 60}
    async with GatewayProcess("one", tmp_path, **settings) as one, cluster.worker() as worker:
        worker.pause = 0.5
        asked = ASKED | {"prompt": " ".join(["word"] * 12)}
        async with http.post(f"{one.url}/v1/completions", json=asked):
            one.signal(signal.SIGINT)
            await asyncio.sleep(0.5)
            assert one.exit_code is None
            one.signal(signal.SIGINT)
            assert await one.wait() == 128 + signal.SIGINT


async def test_brokers_that_come_later(tmp_path: Path, settings: dict[str, Any]) -> None:
    """It waits for them, alive and not ready, and leaves on a signal."""
    settings |= {"bootstrap": "127.0.0.1:1"}
    async with GatewayProcess("one", tmp_path, **settings).started() as one:
        await one.alive()
        status, page = await one.probe("/readyz")
        assert (status, page) == (503, '{"status":"starting"}')
        await one.told("brokers_unreachable")
        assert await one.stop() == 0


async def test_what_ends_it_at_the_start(aril: RunAril, tmp_path: Path) -> None:
    """One line, and an exit code that says whose fault it is."""
    broken = tmp_path / "keys.toml"
    broken.write_text("[[keys]]\nname = 1\n")
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    for arguments, code, told in (
        ([], 2, "who is asking?"),
        (["--gateway-tenant", "No"], 2, "not a tenant's name"),
        (["--gateway-tenant", "a", "--gateway-http", "nowhere"], 2, "--gateway-http"),
        (["--gateway-keys", str(tmp_path / "none.toml")], 2, "No such file"),
        (["--gateway-keys", str(broken)], 2, "keys.0.name"),
        (["--gateway-tenant", "a", "--gateway-batches", str(broken)], 2, "File exists"),
        (["--gateway-tenant", "a", "--gateway-http", f"127.0.0.1:{port}"], 1, "in use"),
    ):
        done = await aril("gateway", *arguments)
        assert (done.code, told in done.err) == (code, True), done.err
        assert "Traceback" not in done.err
    taken.close()


async def test_a_tenant_for_everybody_is_warned_of(tmp_path: Path) -> None:
    """Where the address is not of this machine alone."""
    process = GatewayProcess(
        "one",
        tmp_path,
        host="0.0.0.0",  # noqa: S104 - that is what is warned of
        gateway_tenant="acme",
        bootstrap="127.0.0.1:1",
    )
    async with process.started() as one:
        await one.alive()
        await one.told("callers_are_trusted")
