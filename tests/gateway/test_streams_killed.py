"""Gateways that are killed in mid-stream, on a real broker: readers go on elsewhere, exactly."""

from __future__ import annotations

import itertools
import json
import signal
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from aril.gateway.keys import hash_of
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_streams import texts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.aril.conftest import Cluster

pytestmark = pytest.mark.kafka
KEY = "aril-a-key-of-the-tests"
WORDS = [f"word{number}" for number in range(40)]
KILLS = 3


@pytest.fixture
def settings(cluster: Cluster, tmp_path: Path) -> dict[str, Any]:
    """Return settings of a gateway on the cluster, for acme with a key."""
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[keys]]\nname = "web"\ntenant = "acme"\nsha256 = "{hash_of(KEY)}"\n')
    return {
        "bootstrap": cluster.bootstrap,
        "jobs_topic": cluster.contract.jobs_topic,
        "replies_prefix": cluster.contract.replies_prefix,
        "gateway_keys": keys,
    }


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Return a client that has the key."""
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        yield session


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Give the kind and data of each event that comes whole, until the gateway is gone."""
    try:
        while block := await answer.content.readuntil(b"\n\n"):
            fields = dict(line.partition(":")[::2] for line in block.decode().strip().split("\n"))
            if "data" in fields:
                yield fields["event"].strip(), json.loads(fields["data"])
    except aiohttp.ClientError:
        return


async def test_the_reader_of_a_stream_goes_on(
    cluster: Cluster, tmp_path: Path, settings: dict[str, Any], http: aiohttp.ClientSession
) -> None:
    """By offset and by number: no message is lost or doubled over kill -9 of one of two gateways.

    Both readers read the same job, that was asked for at a gateway which is gone at once.
    """
    body = {"model": "aril", "input": " ".join(WORDS), "background": True}
    async with (
        GatewayProcess("one", tmp_path, **settings) as one,
        GatewayProcess("two", tmp_path, **settings) as two,
        cluster.worker() as worker,
    ):
        worker.pause = 0.15
        turns = itertools.cycle((one, two))
        async with http.post(f"{one.url}/v1/responses", json=body) as answer:
            begun = await answer.json()
        assert begun["status"] == "queued"
        offset = "-1"
        messages: list[Any] = []
        typed: list[Any] = []
        for kill in range(KILLS + 1):
            gateway, goes_on = next(turns), kill < KILLS
            stream = f"{gateway.url}/v1/streams/{begun['id']}?offset={offset}&live=sse"
            after = f"&starting_after={typed[-1]['sequence_number']}" if typed else ""
            events = f"{gateway.url}/v1/responses/{begun['id']}?stream=true{after}"
            async with http.get(stream) as by_offset, http.get(events) as by_number:
                assert (by_offset.status, by_number.status) == (200, 200)
                waiting: list[Any] = []
                async for kind, data in events_of(by_offset):
                    if kind == "data":
                        waiting = data
                        continue
                    messages += waiting  # not before it is known where they lead
                    offset, waiting = data["streamNextOffset"], []
                    if goes_on and len(messages) >= 8 * (kill + 1):
                        gateway.signal(signal.SIGKILL)
                        goes_on = False
                async for _, data in events_of(by_number):
                    typed.append(data)
            if kill < KILLS:
                assert await gateway.wait() == -signal.SIGKILL
                await gateway.__aenter__()  # anew
        assert texts(messages) == " ".join(WORDS)
        assert [each["kind"] for each in messages] == ["tokens"] * len(WORDS) + ["done"]
        numbers = [each["sequence_number"] for each in typed]
        assert numbers == [*range(len(typed))]
        assert "".join(each.get("delta", "") for each in typed) == " ".join(WORDS)
        assert typed[-1]["type"] == "response.completed"
        for gateway in (one, two):
            async with http.get(f"{gateway.url}/v1/streams/{begun['id']}") as answer:
                assert await answer.json() == messages
                assert answer.headers["stream-next-offset"] == offset
            async with http.get(f"{gateway.url}/v1/responses/{begun['id']}") as answer:
                assert (await answer.json())["status"] == "completed"
        assert not worker.cancelled
