"""The client without asyncio on a real broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from aril import BlockingClient, BrokerUnavailable, TopicMissing
from aril.broker import free_port

if TYPE_CHECKING:
    from tests.aril.conftest import Cluster

pytestmark = pytest.mark.kafka


def asked(cluster: Cluster, client: BlockingClient) -> None:
    """Ask in every way."""
    with client:
        assert client.complete("one two three").text == "one two three"
        assert "".join(client.text("one two three")) == "one two three"
        for _ in (stream := client.stream("one two three")):
            token = stream.detach()  # which ends the loop
        assert client.resume(str(token)).result().text == "one two three"
    contract = cluster.contract
    missing = BlockingClient(
        cluster.bootstrap,
        "nobody",
        jobs_topic=contract.jobs_topic,
        replies_prefix=contract.replies_prefix,
    )
    with pytest.raises(TopicMissing):
        missing.open()


async def test_answers_from_kafka(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole answers, streams and their rest come over Kafka; a topic that is not there is told."""
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    client = BlockingClient.from_env("acme")
    async with cluster.worker():
        await asyncio.to_thread(asked, cluster, client)


def test_no_broker() -> None:
    """Where nobody answers, opening says so and leaves nothing behind."""
    client = BlockingClient(f"127.0.0.1:{free_port()}", "acme")
    with pytest.raises(BrokerUnavailable, match="no broker answers"):
        client.complete("x")
