"""The compose stack for real, by its published port: scaled, hurt and drained while it serves."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from aril import Client
from aril.schemas import DoneEvent, VisibleStream, decode_reply
from tests.support.compose import Stack, engine_answers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from aril import Completion

TENANTS: Final = {"acme": "terse", "blackbeard": "pirate", "ledgerly": "extract", "visitor": None}
JOBS_AT_ONCE: Final = 2  # a tenant
TOKENS: Final = 32
YOUNG: Final = 8  # tokens: a stream this short goes on for seconds
PROGRESS: Final = 8  # answers that show that the stack serves
PATIENCE: Final = 600.0  # seconds


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that changes while other tasks run."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


class Load:
    """Tenants that always have a few jobs each under way."""

    def __init__(self) -> None:
        self.answers: list[Completion] = []
        self.sent: set[tuple[str, str]] = set()
        self._numbers = count()
        self._stopping = False

    async def serve(self, client: Client, adapter: str | None) -> None:
        """Ask one question after another until `stop`; the first failure ends the test."""
        while not self._stopping:
            job = f"job-{next(self._numbers)}"
            self.sent.add((client.tenant, job))
            answer = await client.complete(
                messages=[{"role": "user", "content": f"My parcel {job} is late. What now?"}],
                adapter=adapter,
                job_id=job,
                sampling={"max_tokens": TOKENS, "ignore_eos": True},
                timeout=PATIENCE,
            )
            self.answers.append(answer)

    async def progress(self) -> None:
        """Wait until some more jobs have been answered."""
        wanted = len(self.answers) + PROGRESS
        await until(lambda: len(self.answers) >= wanted)

    def stop(self) -> None:
        """Send no more; what is under way is still waited for."""
        self._stopping = True


@asynccontextmanager
async def under_load(bootstrap: str) -> AsyncIterator[Load]:
    """Keep every tenant busy inside the block; on leaving it all jobs have been answered."""
    load = Load()
    async with AsyncExitStack() as clients, asyncio.TaskGroup() as tasks:
        for tenant, adapter in TENANTS.items():
            client = await clients.enter_async_context(Client(bootstrap, tenant))
            for _ in range(JOBS_AT_ONCE):
                tasks.create_task(load.serve(client, adapter))
        try:
            yield load
        finally:
            load.stop()


class ReplyLog:
    """A witness beside the clients: every reply record, folded by the reader rule."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.streams: dict[tuple[str, str], VisibleStream] = {}
        self.hosts: dict[tuple[str, str], set[str]] = {}
        self._consumer = consumer

    async def follow(self) -> None:
        """Read until cancelled."""
        while True:
            for place, records in (await self._consumer.getmany(timeout_ms=200)).items():
                tenant = place.topic.removeprefix("replies.")
                for record in records:
                    self._take(tenant, record.value)

    def _take(self, tenant: str, value: bytes) -> None:
        reply = decode_reply(value)
        assert reply is not None, "a kind of reply that this version does not know"
        key = tenant, reply.job
        self.streams.setdefault(key, VisibleStream()).feed(reply)
        # A worker's name begins with its host's, which is the container's short id.
        self.hosts.setdefault(key, set()).add(reply.worker[:12])

    def busy(self, hosts: Collection[str]) -> str | None:
        """Return which of `hosts` writes a stream that has just begun, if one does."""
        for stream in self.streams.values():
            host = (stream.writer or "")[:12]
            if host in hosts and not stream.finished and 0 < stream.count <= YOUNG:
                return host
        return None


@asynccontextmanager
async def witness(bootstrap: str) -> AsyncIterator[ReplyLog]:
    """Follow the reply topics from their beginning; what was written by the end has been read."""
    consumer = AIOKafkaConsumer(
        *(f"replies.{tenant}" for tenant in TENANTS),
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    log = ReplyLog(consumer)
    following = asyncio.create_task(log.follow())
    try:
        yield log
        places = consumer.assignment()
        ends = await consumer.end_offsets(places)
        async with asyncio.timeout(PATIENCE):
            while any([await consumer.position(place) < ends[place] for place in places]):
                assert not following.done()
                await asyncio.sleep(0.1)
    finally:
        following.cancel()
        await asyncio.wait([following])
        await consumer.stop()


async def all_committed(bootstrap: str) -> None:
    """Wait until the group has committed every job, and see that none was dead-lettered."""
    consumer = AIOKafkaConsumer("jobs", "jobs.dlq", bootstrap_servers=bootstrap)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await asyncio.gather(consumer.start(), admin.start())
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        jobs = {place: end for place, end in ends.items() if place.topic == "jobs"}
        assert not any(end for place, end in ends.items() if place not in jobs)
        async with asyncio.timeout(PATIENCE):
            while True:
                if await _committed(admin, jobs) == {job: end for job, end in jobs.items() if end}:
                    return
                await asyncio.sleep(0.5)
    finally:
        await asyncio.gather(consumer.stop(), admin.close())


async def _committed(
    admin: AIOKafkaAdminClient, places: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    told = await admin.list_consumer_group_offsets("aril", partitions=list(places))
    return {place: entry.offset for place, entry in told.items() if entry.offset > 0}


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    if not engine_answers():
        assert "REQUIRE_DOCKER" not in os.environ, "no Docker engine: deploy/standins/engine.sh"
        pytest.skip("no Docker engine with compose v2")


@pytest.mark.slow
@pytest.mark.timeout(3000)
async def test_the_gateway_answers() -> None:
    """With its profile: a question to its published port is streamed, under no key of anybody's."""
    question = {
        "model": "terse",
        "stream": True,
        "max_tokens": TOKENS,
        "messages": [{"role": "user", "content": "My parcel is late. What now?"}],
    }
    with Stack("gateway") as stack:
        url = f"{stack.gateway}/v1/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json=question) as answer:
            lines = (await answer.text()).splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert lines[-2] == "data: [DONE]"
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] in {"stop", "length"}
    assert stack.left_behind() == ""


@pytest.mark.slow
@pytest.mark.timeout(3000)
async def test_every_stream_ends_once() -> None:
    """From one worker to three to one, with one of them killed: each job is answered once."""
    with Stack() as stack:
        assert stack.state_of("topics")["State"]["ExitCode"] == 0
        async with witness(stack.bootstrap) as log:
            async with under_load(stack.bootstrap) as load:
                await load.progress()
                await asyncio.to_thread(stack.scale, 3)
                await asyncio.to_thread(stack.wait_for_workers, 3)
                await load.progress()
                workers = await asyncio.to_thread(stack.workers)
                await until(lambda: log.busy(workers) is not None)
                victim = log.busy(workers) or ""
                await asyncio.to_thread(stack.kill, victim)
                await load.progress()
                await asyncio.to_thread(stack.scale, 1)
                await asyncio.to_thread(stack.wait_for_workers, 1)
                await load.progress()
            await all_committed(stack.bootstrap)
    assert stack.left_behind() == ""

    assert set(log.streams) == load.sent
    terminals = [stream.terminal for stream in log.streams.values()]
    assert all(isinstance(terminal, DoneEvent) for terminal in terminals), terminals
    texts = {answer.job: answer.text for answer in load.answers}
    assert texts == {job: stream.text for (_, job), stream in log.streams.items()}
    assert {stream.count for stream in log.streams.values()} == {TOKENS}
    taken_over = [key for key, hosts in log.hosts.items() if victim in hosts and len(hosts) > 1]
    assert taken_over, "nobody went on with what the killed worker had begun"
    assert len(set.union(*log.hosts.values())) >= 3
    resets = sum(stream.resets for stream in log.streams.values())
    sys.stdout.write(
        f"{len(texts)} jobs, {len(taken_over)} taken over from the killed worker, {resets} resets\n"
    )
