"""Who asks, and who reads every answer: one process, one connection to the broker.

A reply topic is read while jobs of its tenant are open, as a gateway does, and from where it was
read to before: no record is passed over.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aril.fetching.place import Place
from aril.kafka import KafkaTransport
from aril.schemas import Job, Sampling, decode_reply, encode_request, reply_partition, reply_topic
from benchmarks.fleet_real.plan import turns_of
from benchmarks.fleet_real.streams import Stream, Streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.stack import Stack

AT_ONCE: Final = 500  # jobs of a long queue that are on their way to the broker


class Load:
    """Jobs of all tenants in turn, and the streams of their answers."""

    def __init__(self, stack: Stack) -> None:
        self.streams = Streams()
        self._stack = stack
        self._transport = KafkaTransport(stack.bootstrap)
        self._turns = turns_of(len(stack.tenants))
        self._chance = random.Random(2)
        self._numbers = 0
        self._open: Counter[Place] = Counter()  # jobs, by the partition of their answers
        self._read_to: dict[Place, int] = {}

    def follow_all(self) -> None:
        """Read every reply topic from where it was read to."""
        for tenant in self._stack.tenants:
            self._follow(self._replies_of(tenant))

    def follow_open(self) -> None:
        """Read those of open jobs only."""
        for tenant in self._stack.tenants:
            if not self._open[place := self._replies_of(tenant)]:
                self._rest(place)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Read answers meanwhile."""
        await self._transport.open()
        try:
            task = asyncio.create_task(self._read())
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        finally:
            await self._transport.close()

    async def ask(self, tokens: int) -> None:
        """Send one job of whose turn it is."""
        tenant = self._stack.tenants[next(self._turns)]
        self._numbers += 1
        job = Job(
            id=f"j{self._numbers:07}",
            tenant=tenant,
            prompt="x",
            sampling=Sampling(max_tokens=tokens),
        )
        self.streams.expect(Stream(tenant, job.id, tokens, time.monotonic()))
        replies = self._replies_of(tenant)
        if not self._open[replies]:
            self._follow(replies)
        self._open[replies] += 1
        partition = reply_partition(job.id, self._stack.partitions)
        place = Place(self._stack.contract.jobs_topic, partition)
        await self._transport.send(place, job.id.encode(), encode_request(job))

    async def ask_many(self, count: int, tokens: int) -> None:
        """Send so many jobs as fast as the broker takes them."""
        for begin in range(0, count, AT_ONCE):
            some = min(AT_ONCE, count - begin)
            await asyncio.gather(*(self.ask(tokens) for _ in range(some)))

    @asynccontextmanager
    async def asking(self, jobs: float, tokens: int) -> AsyncIterator[None]:
        """Send so many jobs a second meanwhile, at random moments."""
        task = asyncio.create_task(self._ask_on(jobs, tokens))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def answered(self, seconds: float, *, left: int = 0) -> None:
        """Wait until no more than so many jobs are open, or no longer."""
        until = time.monotonic() + seconds
        while self.streams.open > left and time.monotonic() < until:  # noqa: ASYNC110 - seen in logs
            await asyncio.sleep(0.05)

    async def _ask_on(self, jobs: float, tokens: int) -> None:
        due, sending = time.monotonic(), set[asyncio.Task[None]]()
        while True:
            due += self._chance.expovariate(jobs)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self.ask(tokens))
            sending.add(task)
            task.add_done_callback(sending.discard)

    async def _read(self) -> None:
        while True:
            records = await self._transport.poll()
            at = time.monotonic()
            for record in records:
                reply = decode_reply(record.value or b"")
                if reply is not None and self.streams.take(reply, at):
                    self._open[record.place] -= 1
                    if not self._open[record.place]:
                        self._rest(record.place)

    def _follow(self, place: Place) -> None:
        if self._transport.position(place) is None:
            self._transport.follow(place, self._read_to.get(place, 0))

    def _rest(self, place: Place) -> None:
        position = self._transport.position(place)
        if position is not None:
            self._read_to[place] = position
            self._transport.unfollow(place)

    def _replies_of(self, tenant: str) -> Place:
        return Place(reply_topic(self._stack.contract.replies_prefix, tenant), 0)
