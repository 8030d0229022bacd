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

from aril.schemas import TokensEvent
from tests.faults.history import DONE, Asked, Name
from tests.support.fault_client import FaultClient, Reader
from tests.support.fault_fleet import PARTITIONS
from tests.support.fault_jobs import USUAL, Pressure, Wish, draw
from tests.support.fault_packers import Packers

if TYPE_CHECKING:
    from aril.schemas import Event
    from tests.support.fault_fleet import FaultSite

TENANTS = ("acme", "blackbeard", "ledgerly", "visitor")
# A fault costs a session time-out and a rebalance; several in a row, and a crowd, some of each.
ANSWER_SECONDS = 150.0
POISON_SECONDS = 2.0
# A long answer, and how far its reader has to be to have something to lose.
LONG_TOKENS = 80
SEEN_EVENTS = 5


class Load:
    """Four tenants with equal job ids; an async context manager."""

    def __init__(
        self,
        site: FaultSite,
        seed: int,
        patience: float = ANSWER_SECONDS,
        pressure: Pressure = USUAL,
    ) -> None:
        self._site = site
        self._patience = patience  # how long an answer is waited for
        self._pressure = pressure
        self._seed = seed
        self._stack = AsyncExitStack()
        self._numbers = {tenant: itertools.count(1) for tenant in TENANTS}
        self._clients: dict[str, FaultClient] = {}
        self._lanes: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._whole: dict[Name, tuple[Wish, list[Event]]] = {}  # being read in one go
        self.asked: list[Asked] = []
        self.live: list[tuple[Name, tuple[Event, ...]]] = []
        self.unfinished: list[Name] = []
        self.seconds: list[tuple[float, Name]] = []  # how long each was waited for, or read
        self._begun: list[float] = []  # when each of `asked` was
        self.open: set[Name] = set()  # asked, and not through
        self.restarts = 0

    async def __aenter__(self) -> Self:
        await self.renew()
        for tenant in TENANTS:
            for _ in range(self._pressure.lanes):
                self._lanes.append(asyncio.create_task(self._ask_often(tenant)))
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

    async def renew(self) -> None:
        """Ask by new clients from now on: they know how many partitions there are by now."""
        packers = Packers(self._site.bootstrap, self._site.contract.jobs_topic)
        await self._stack.enter_async_context(packers)
        for tenant in TENANTS:
            client = FaultClient(self._site, tenant, packers)
            self._clients[tenant] = await self._stack.enter_async_context(client)

    def long_answer(self) -> Name | None:
        """Return a long job whose reader has seen some of it, and is with it to the end."""
        for name, (wish, events) in self._whole.items():
            if wish.whole and wish.tokens >= LONG_TOKENS and self.reads(name):
                seen = sum(isinstance(event, TokensEvent) for event in events)
                if SEEN_EVENTS <= seen < wish.tokens // 2:
                    return name
        return None

    def reads(self, name: Name) -> bool:
        """Whether a job is being read in one go, and has not ended."""
        _, events = self._whole.get(name, (None, []))
        return bool(events) and isinstance(events[-1], TokensEvent)

    def wants(self, tenant: str, adapter: str) -> bool:
        """Whether an answer by that adapter is being waited for."""
        return any(
            name.tenant == tenant and wish.whole and adapter in wish.adapters
            for name, (wish, _) in self._whole.items()
        )

    def answered_since(self, moment: float) -> set[tuple[str, bool]]:
        """Return whose jobs, without an adapter and with one, were asked since and are answered."""
        asked = zip(self.asked, self._begun, strict=True)
        return {
            (each.name.tenant, bool(each.adapters))
            for each, begun in asked
            if begun >= moment and each.ends == {DONE} and each.outcome == "ok"
        }

    async def _ask_often(self, tenant: str) -> None:
        while not self._stopping.is_set():
            await self._ask(self._clients[tenant])

    async def _ask(self, client: FaultClient) -> None:
        tenant = client.tenant
        name = Name(tenant, f"job-{next(self._numbers[tenant])}")
        chance = random.Random(f"{self._seed}/{name}")  # the same job again with the same seed
        wish = draw(chance, tenant, self._pressure)
        if wish.broken:
            client.breaking.add(name.job.encode())
        if wish.codec:
            client.packing[name.job.encode()] = wish.codec
        stream = client.stream(
            None if wish.messages else "?", **wish.options(name.job, self._patience)
        )
        reader = Reader(self._site, client, stream, self._patience)
        leaves = chance.random()
        pauses = leaves < self._pressure.restarts + self._pressure.left
        if not pauses:
            self._whole[name] = (wish, reader.events)
        begun = time.monotonic()
        self.open.add(name)
        outcome = None
        try:
            outcome = await reader.read(
                cancel_after=wish.cancel_after,
                pause_after=chance.randrange(wish.tokens + 2) if pauses else None,
                leave=leaves < self._pressure.left,
            )
        except TimeoutError:
            self.unfinished.append(name)
        finally:
            self._whole.pop(name, None)
            self.open.discard(name)
        self.seconds.append((time.monotonic() - begun, name))
        self.restarts += reader.restarts
        self.asked.append(
            Asked(
                name,
                wish.tokens,
                outcome or "ok",
                adapter=wish.adapter and wish.adapter.partition("@")[0],
                scale=wish.scale,
                mixture=wish.mixture,
                ends=wish.ends,
                deadline_ms=None if wish.deadline is None else int(wish.deadline * 1_000),
                codec=wish.codec,
                form=wish.form,
            )
        )
        self._begun.append(begun)
        if outcome is not None:
            self.live.append((name, tuple(reader.events)))

    async def _poison_often(self) -> None:
        chance = random.Random(self._seed)
        producer = AIOKafkaProducer(bootstrap_servers=self._site.bootstrap)
        await producer.start()
        try:
            while not self._stopping.is_set():
                partition = chance.randrange(PARTITIONS)
                topic = self._site.contract.jobs_topic
                await producer.send_and_wait(topic, b"\xc1" + os.urandom(20), partition=partition)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POISON_SECONDS):
                        await self._stopping.wait()
        finally:
            await producer.stop()
