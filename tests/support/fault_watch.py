"""What the broker knows of a run: all logs in full, and the group's offsets while it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient

from schemas import DecodeError, decode_reply, decode_request
from tests.faults.history import Committed, Dead, Input, Logged, Name
from tests.support.fault_fleet import PARTITIONS
from tests.support.fault_load import TENANTS
from worker.done_list import decode

if TYPE_CHECKING:
    from tests.support.fault_fleet import FaultSite

SAMPLE_SECONDS = 0.3
SETTLE_SECONDS = 90.0


class Offsets:
    """Notes what the group has committed, again and again; an async context manager."""

    def __init__(self, site: FaultSite) -> None:
        self._site = site
        self._places = [
            TopicPartition(site.contract.jobs_topic, each) for each in range(PARTITIONS)
        ]
        self.seen: list[Committed] = []

    async def __aenter__(self) -> Self:
        self._admin = AIOKafkaAdminClient(bootstrap_servers=self._site.bootstrap)
        await self._admin.start()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._admin.close()

    async def look(self) -> dict[int, int]:
        """Note the offsets now; return the positions by partition."""
        found = await self._admin.list_consumer_group_offsets(
            self._site.group, partitions=self._places
        )
        now = int(time.time() * 1_000)
        for place, (position, metadata) in found.items():
            done = decode(position, metadata or "")
            self.seen.append(Committed(now, place.partition, position, done))
        return {place.partition: told.offset for place, told in found.items()}

    async def settled(self, seconds: float = SETTLE_SECONDS) -> list[str]:
        """Wait until everything is committed; return what is not, if that takes too long."""
        ends = {place.partition: 0 for place in self._places}
        for record in await read_all(self._site.bootstrap, self._site.contract.jobs_topic):
            ends[record.partition] = record.offset + 1
        until = time.monotonic() + seconds
        while True:
            found = await self.look()
            open_ = [
                f"partition {place}: committed {found.get(place)} of {end}"
                for place, end in ends.items()
                if end and found.get(place) != end
            ]
            if not open_ or time.monotonic() > until:
                return open_
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(errors.KafkaError):
                await self.look()
            await asyncio.sleep(SAMPLE_SECONDS)


async def read_all(bootstrap: str, topic: str) -> list[Any]:
    """Read a whole topic: the records of each partition in order."""
    reader = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await reader.start()
    found: list[Any] = []
    try:
        places = sorted(reader.assignment())
        assert places, f"{topic} was not found"
        ends = await reader.end_offsets(places)
        for place in places:
            while await reader.position(place) < ends[place]:
                found += (await reader.getmany(place, timeout_ms=500)).get(place, [])
    finally:
        await reader.stop()
    return found


async def replies(site: FaultSite) -> list[Logged]:
    """Read every tenant's reply topic."""
    return [
        Logged(tenant, each.partition, each.offset, each.timestamp, each.key, reply)
        for tenant in TENANTS
        for each in await read_all(site.bootstrap, site.contract.replies_prefix + tenant)
        if (reply := decode_reply(each.value)) is not None
    ]


async def inputs(site: FaultSite) -> list[Input]:
    """Read the jobs topic."""
    found = []
    for each in await read_all(site.bootstrap, site.contract.jobs_topic):
        try:
            request = decode_request(each.value)
        except DecodeError:
            name = None
        else:
            name = Name(request.tenant, request.id)
        found.append(Input(each.partition, each.offset, name))
    return found


async def dead_letters(site: FaultSite) -> list[Dead]:
    """Read the dead letters: which records they are of is told by their keys."""
    found = []
    for each in await read_all(site.bootstrap, site.contract.dlq_topic):
        _, partition, offset = each.key.decode().rsplit("/", 2)
        found.append(Dead(int(partition), int(offset), each.timestamp))
    return found
