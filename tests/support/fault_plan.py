"""The faults, each a way to hurt a fleet under load, and the order that a seed puts them in."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.structs import OffsetAndMetadata

from tests.support.fault_fleet import DEATH_SECONDS, PARTITIONS, SESSION_SECONDS
from tests.support.fault_proxy import FaultProxy
from tests.support.fault_worker import POINTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.fault_broker import MortalKafka
    from tests.support.fault_fleet import FaultWorker, Fleet

KINDS = (
    ("zombie", "zombie_at_a_point"),
    ("rolling_restart", "scale"),
    ("all_dead", "lost_metadata", "group_deleted"),
    ("bad_network", "black_hole"),
)
STEADY = 2
NUDGE_SECONDS = 15.0
# After how many passes a point kills, at the most.
PASSES = {"after_fetch": 3, "after_claim": 2, "mid_stream": 60, "after_terminal": 6}
# What is held back of whom, and for how long: shorter than a session; longer; longer than an
# append waits for its acknowledgement, while the rest goes on.
HOLES = (
    (("up",), False, SESSION_SECONDS / 2),
    (("up", "down"), False, SESSION_SECONDS + 3),
    (("down",), False, SESSION_SECONDS + 3),
    (("down",), True, 17.0),
    (("up",), True, 17.0),
)


class Faults:
    """What can be done to a fleet. Each method ends with two steady workers, or on their way."""

    def __init__(self, fleet: Fleet, seed: int, broker: MortalKafka | None = None) -> None:
        self._fleet = fleet
        self._broker = broker
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.missed: list[str] = []
        self.zombies = False
        self.generations_restarted = False

    def plan(self, *, whole: bool) -> list[str]:
        """Return a round of faults in an order of its own; those joined by a plus come together.

        Every point is in it, and every other fault, or else one of each kind.
        """
        points = [*POINTS]
        self._random.shuffle(points)
        found = list(map("+".join, zip(points[::2], points[1::2], strict=True)))
        for kind in KINDS:
            found += kind if whole else [self._random.choice(kind)]
        self._random.shuffle(found)
        return found

    async def commit(self, names: str) -> None:
        """Do one, or several at a time."""
        await asyncio.gather(*map(self._commit, names.split("+")))
        await self._fleet.grow(STEADY)
        while len(self._fleet.steady) > STEADY:
            await self._fleet.drain(self._fleet.steady[0])

    async def _commit(self, name: str) -> None:
        if name in POINTS:
            await self._killed_at(name)
        else:
            await getattr(self, f"_{name}")()
        self.done[name] += 1

    async def _killed_at(self, point: str) -> None:
        """Let a worker join that dies at a point."""
        worker = self._fleet.new(kill=self._passing(point))
        await self._lead_to(worker, point)
        if not await worker.died(NUDGE_SECONDS):  # by chance there was nothing to take over
            self._fleet.steady.append(self._fleet.new())
        if not await worker.died(DEATH_SECONDS):
            self.missed.append(f"{worker.name} did not die, exit code {worker.exit_code}")
            await worker.kill()

    async def _zombie(self) -> None:
        """Halt a busy worker until others have its jobs, and let it go on."""
        worker = self._random.choice(self._fleet.steady)
        await worker.busy()
        worker.signal(signal.SIGSTOP)
        await self._wake(worker)

    async def _zombie_at_a_point(self) -> None:
        """Halt one where it hurts."""
        point = self._random.choice(POINTS)
        worker = self._fleet.new(halt=self._passing(point))
        await self._lead_to(worker, point)
        if not await worker.halted():
            self.missed.append(f"{worker.name} did not halt, exit code {worker.exit_code}")
            return
        await self._wake(worker)
        if point == "in_drain":
            await self._fleet.gone(worker)
        else:
            self._fleet.steady.append(worker)

    async def _wake(self, worker: FaultWorker) -> None:
        self.zombies = True
        await asyncio.sleep(SESSION_SECONDS + self._random.uniform(1, 4))
        worker.signal(signal.SIGCONT)
        await asyncio.sleep(1)

    def _passing(self, point: str) -> str:
        return f"{point}:{self._random.randint(1, PASSES.get(point, 1))}"

    async def _lead_to(self, worker: FaultWorker, point: str) -> None:
        """Do what lets a worker come to a point, where load alone does not."""
        if point == "in_revoke":
            await worker.ready()
            self._fleet.steady.append(self._fleet.new())
        elif point == "in_drain":
            await worker.busy()
            worker.signal(signal.SIGTERM)

    async def _rolling_restart(self) -> None:
        """Replace three workers, one after the other."""
        await self._fleet.grow(3)
        for worker in [*self._fleet.steady]:
            self._fleet.steady.append(self._fleet.new())
            await self._fleet.drain(worker)
        await self._fleet.grow(3)

    async def _scale(self) -> None:
        """From two to one, to three, to one."""
        await self._fleet.drain(self._fleet.steady[0])
        await self._fleet.grow(3)
        await asyncio.gather(*map(self._fleet.drain, self._fleet.steady[1:]))

    async def _all_dead(self) -> None:
        """Let nobody live for a while."""
        await self._fleet.kill_all()
        await asyncio.sleep(self._random.uniform(0, 3))

    async def _lost_metadata(self) -> None:
        """Let nobody live, and replace what the group's offsets say is done beyond them."""
        await self._fleet.kill_all()
        site = self._fleet.site
        consumer = AIOKafkaConsumer(
            bootstrap_servers=site.bootstrap, group_id=site.group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            places = [TopicPartition(site.contract.jobs_topic, each) for each in range(PARTITIONS)]
            consumer.assign(places)
            await asyncio.sleep(SESSION_SECONDS + 1)  # while it has members nobody else may commit
            positions = {place: await consumer.committed(place) for place in places}
            text = self._random.choice(["", "not base64", "AQAAAAAA", "x" * 4_000])
            await consumer.commit(
                {
                    place: OffsetAndMetadata(position, text)
                    for place, position in positions.items()
                    if position is not None
                }
            )
        finally:
            await consumer.stop()

    async def _group_deleted(self) -> None:
        """Let nobody live, and delete the group: its offsets go, its generations begin again."""
        await self._fleet.kill_all()
        site = self._fleet.site
        self.generations_restarted = True
        admin = AIOKafkaAdminClient(bootstrap_servers=site.bootstrap)
        await admin.start()
        try:
            for _ in range(60):  # it has to run empty first
                node = await admin.find_coordinator(site.group)
                told = await admin._send_request(DeleteGroupsRequest([site.group]), node)
                if not told.results[0][1]:
                    return
                await asyncio.sleep(0.5)
            self.missed.append(f"the group was not deleted: {told}")
        finally:
            await admin.close()

    async def _bad_network(self) -> None:
        """Cut and delay what goes between a worker and the broker."""
        async with self._behind_a_proxy() as proxy:
            for _ in range(3):
                proxy.delay = self._random.choice((0.0, 0.02, 0.3))
                await asyncio.sleep(self._random.uniform(0.5, 1.5))
                proxy.cut()

    async def _black_hole(self) -> None:
        """Hold back what goes between a worker and the broker, so that it lands late."""
        self.zombies = True
        ways, appends_only, seconds = self._random.choice(HOLES)
        async with self._behind_a_proxy() as proxy:
            proxy.hold(*ways, appends_only=appends_only)
            await asyncio.sleep(seconds)
            proxy.heal()
            await asyncio.sleep(1)

    async def _broker_halted(self) -> None:
        """Let the broker answer nobody, for less or for more than anybody waits for it."""
        assert self._broker is not None
        self.zombies = True
        await self._broker.halt(self._random.choice((2.0, SESSION_SECONDS + 3, 18.0)))

    async def _broker_killed(self) -> None:
        """Kill the broker, and start it again."""
        assert self._broker is not None
        self.zombies = True
        await self._broker.die(self._random.uniform(0, 4))
        await asyncio.sleep(2)

    @asynccontextmanager
    async def _behind_a_proxy(self) -> AsyncIterator[FaultProxy]:
        """Run a busy worker behind a proxy; kill it in the end."""
        port = self._fleet.site.bootstrap.rpartition(":")[2]
        async with FaultProxy(int(port)) as proxy:
            worker = self._fleet.new(proxy=f"{port}:{proxy.port}")
            await worker.busy()
            yield proxy
            if worker.exit_code is not None:
                self.missed.append(f"{worker.name} ended by itself, exit code {worker.exit_code}")
            await worker.kill()
