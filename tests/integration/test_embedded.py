"""The way of the demo: a worker comes back on the embedded broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from aril.broker import EmbeddedBroker
from aril.schemas import ClaimRecord, TokensRecord
from aril.worker.topics.admin import Contract, TopicPlan, ensure_topics
from tests.integration.conftest import Site
from tests.support.brokers import Kafka

if TYPE_CHECKING:
    from pathlib import Path

    from aril import Completion, Stream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

LONG = {"max_tokens": 150, "ignore_eos": True}
TENANT = "visitor"
ONE_PARTITION = TopicPlan(jobs_partitions=1, reply_partitions=1)


async def test_jobs_of_one_batch_are_taken_over(tmp_path: Path, model: tuple[Path, Path]) -> None:
    """Each is claimed, though this broker says that the log ends within their batch.

    And each is found and read again by who comes later, to the log's true end.
    """
    contract = Contract(jobs_topic="jobs", dlq_topic="dlq", replies_prefix="replies.")
    async with EmbeddedBroker() as broker:
        await ensure_topics(broker.bootstrap, contract, [TENANT], ONE_PARTITION)
        site = Site(Kafka(broker.bootstrap, "embedded"), tmp_path, *model, contract)
        async with site.client(TENANT) as client:
            streams = [client.stream(f"story {n}", sampling=LONG, timeout=120) for n in range(8)]
            begun = [asyncio.Event() for _ in streams]

            async def read(stream: Stream, one: asyncio.Event) -> Completion:
                async for _ in stream:
                    one.set()
                return await stream.result()

            reading = [
                asyncio.create_task(read(stream, one))
                for stream, one in zip(streams, begun, strict=True)
            ]
            async with site.worker("one", drain_seconds=0) as worker:
                for one in begun:
                    await one.wait()
                assert await worker.stop() == 0
            async with site.worker("two"):
                answers = await asyncio.gather(*reading)
        assert [(len(each.token_ids), each.resets) for each in answers] == [(150, 0)] * 8
        logs = await site.logs(TENANT)
        for stream in streams:
            epochs = [each.epoch for each in logs[stream.job] if isinstance(each, TokensRecord)]
            claims = [each.epoch for each in logs[stream.job] if isinstance(each, ClaimRecord)]
            assert epochs[-1] > epochs[0], "the second worker has not written to it"
            assert claims[-1] == epochs[-1]
        async with site.client(TENANT) as later:
            for stream, answer in zip(streams, answers, strict=True):
                found = later.resume(await later.find(stream.job))
                assert (await found.result()).token_ids == answer.token_ids
