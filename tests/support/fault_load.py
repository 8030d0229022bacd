"""Tenants that ask all the time: through the real client, which they sometimes throw away."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from aiokafka import AIOKafkaProducer

from aril import Client
from aril.errors import BrokerUnavailable, ClientClosed, JobFailed, JobTimeout
from aril.kafka import KafkaTransport
from schemas import reply_topic
from tests.faults.history import Asked, Name
from tests.support.fault_fleet import PARTITIONS

if TYPE_CHECKING:
    from aril import Stream
    from schemas import Event
    from tests.faults.history import Outcome
    from tests.support.fault_fleet import FaultSite

TENANTS = ("acme", "blackbeard", "ledgerly", "visitor")
LANES = 6  # jobs that a tenant has at work at a time: more than two workers have rows for
# A fault costs a session time-out and a rebalance; several in a row, and a crowd, some of each.
ANSWER_SECONDS = 150.0
RESTART_SHARE = 0.2
LEFT_SHARE = 0.03
TWICE_SHARE = 0.1
POISON_SECONDS = 2.0


class TwiceTransport(KafkaTransport):
    """Sends some jobs twice, as a producer does that got no acknowledgement."""

    async def send(self, partition: int, key: bytes, value: bytes) -> None:
        """Send once, and perhaps once more."""
        await super().send(partition, key, value)
        if random.random() < TWICE_SHARE:
            await super().send(partition, key, value)


class Load:
    """Four tenants with equal job ids; an async context manager."""

    def __init__(self, site: FaultSite, seed: int, patience: float = ANSWER_SECONDS) -> None:
        self._site = site
        self._patience = patience  # how long an answer is waited for
        self._random = random.Random(seed)
        self._stack = AsyncExitStack()
        self._numbers = {tenant: itertools.count(1) for tenant in TENANTS}
        self._lanes: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self.asked: list[Asked] = []
        self.live: list[tuple[Name, tuple[Event, ...]]] = []
        self.unfinished: list[Name] = []
        self.slowest = (0.0, "")  # seconds, and which job
        self.restarts = 0

    async def __aenter__(self) -> Self:
        for tenant in TENANTS:
            client = await self._stack.enter_async_context(self._client(tenant))
            for _ in range(LANES):
                self._lanes.append(asyncio.create_task(self._ask_often(client)))
        self._lanes.append(asyncio.create_task(self._poison_often()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        await self._stack.aclose()

    async def finish(self) -> None:
        """Ask no more, and wait for the answers that are under way."""
        self._stopping.set()
        await asyncio.gather(*self._lanes)

    def _client(self, tenant: str) -> Client:
        contract = self._site.contract
        transport = TwiceTransport(
            self._site.bootstrap,
            jobs_topic=contract.jobs_topic,
            reply_topic=reply_topic(contract.replies_prefix, tenant),
        )
        return Client(self._site.bootstrap, tenant, transport=transport)

    async def _ask_often(self, client: Client) -> None:
        while not self._stopping.is_set():
            await self._ask(client)

    async def _ask(self, client: Client) -> None:
        chance = self._random
        name = Name(client.tenant, f"job-{next(self._numbers[client.tenant])}")
        count = chance.choice((1, 2, 7, 20, 40, 80, 160))
        stream = client.stream(
            "?", job_id=name.job, sampling={"max_tokens": count}, timeout=self._patience
        )
        events: list[Event] = []
        begun = time.monotonic()
        outcome: Outcome = "ok"
        try:
            try:
                outcome = await self._read(client, stream, count, events)
            except BrokerUnavailable:
                outcome = await self._insist(client.tenant, stream, events)
        except JobTimeout:
            self.unfinished.append(name)
        except JobFailed:
            pass  # its error is in the log, and the checker's to judge
        self.slowest = max(self.slowest, (round(time.monotonic() - begun, 1), str(name)))
        self.asked.append(Asked(name, count, outcome))
        if name not in self.unfinished:
            self.live.append((name, tuple(events)))

    async def _read(
        self, client: Client, stream: Stream, count: int, events: list[Event]
    ) -> Outcome:
        """Read an answer: to its end, with a new client on the way, or only its beginning."""
        leaves = self._random.random()
        if leaves >= RESTART_SHARE + LEFT_SHARE:
            async for event in stream:
                events.append(event)  # noqa: PERF401 - what was read counts when the rest fails
            return "ok"
        token = await self._begin(stream, self._random.randrange(count + 2), events)
        if token is not None and leaves < LEFT_SHARE:
            return "info"
        if token is not None:
            await self._resume(client.tenant, token, events)
        return "ok"

    async def _insist(self, tenant: str, stream: Stream, events: list[Event]) -> Outcome:
        """Go on with what is known, again and again, until the broker is back."""
        try:
            token = str(stream.token)
        except ClientClosed:
            return "info"  # it may have been sent
        async with asyncio.timeout(self._patience):
            while True:
                seen = len(events)
                try:
                    await self._resume(tenant, token, events)
                except BrokerUnavailable:
                    del events[seen:]  # the token is that of before
                    await asyncio.sleep(0.5)
                else:
                    return "ok"

    async def _begin(self, stream: Stream, count: int, events: list[Event]) -> str | None:
        """Read the first events; return the token to go on with, None if that was the end."""
        await stream.start()
        reading = aiter(stream)
        for _ in range(count):
            try:
                events.append(await anext(reading))
            except StopAsyncIteration:
                return None
        return None if stream.finished else str(stream.detach())

    async def _resume(self, tenant: str, token: str, events: list[Event]) -> None:
        """Go on as a new process does: with nothing but the token."""
        self.restarts += 1
        async with self._client(tenant) as client:
            events += [event async for event in client.resume(token, timeout=self._patience)]

    async def _poison_often(self) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._site.bootstrap)
        await producer.start()
        try:
            while not self._stopping.is_set():
                partition = self._random.randrange(PARTITIONS)
                topic = self._site.contract.jobs_topic
                await producer.send_and_wait(topic, b"\xc1" + os.urandom(20), partition=partition)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POISON_SECONDS):
                        await self._stopping.wait()
        finally:
            await producer.stop()
