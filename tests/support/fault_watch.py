"""What the broker knows of a run: all logs in full, and the group's offsets while it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from sys import intern
from typing import TYPE_CHECKING, Any, Self

from aiokafka import AIOKafkaConsumer, errors
from aiokafka.admin import AIOKafkaAdminClient

from aril.fetching.tolerant import skip_unreadable
from aril.schemas import Cancel, DecodeError, decode_reply, decode_request
from aril.worker.queue.commit_text import done_list_of
from aril.worker.queue.ledger import Checkpoint
from tests.faults.history import Committed, Dead, Input, Logged, Name
from tests.support.fault_load import TENANTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiokafka.structs import ConsumerRecord

    from tests.faults.history import Kind
    from tests.support.fault_fleet import FaultSite

SAMPLE_SECONDS = 0.3
SETTLE_SECONDS = 90.0


class Offsets:
    """Notes what the group has committed, again and again; an async context manager."""

    def __init__(self, site: FaultSite) -> None:
        self._site = site
        # When each was first seen: later it is only more true.
        self._seen: dict[tuple[int, int, str], Committed] = {}

    @property
    def seen(self) -> list[Committed]:
        """All that differs, as it was seen first."""
        return [*self._seen.values()]

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
        found = await self._admin.list_consumer_group_offsets(self._site.group)
        now = int(time.time() * 1_000)
        for place, (position, metadata) in found.items():
            seen = (place.partition, position, metadata or "")
            if seen not in self._seen:
                done = done_list_of(Checkpoint(position, metadata or ""))
                self._seen[seen] = Committed(now, place.partition, position, done)
        return {place.partition: told.offset for place, told in found.items()}

    async def settled(self, seconds: float = SETTLE_SECONDS) -> list[str]:
        """Wait until everything is committed; return what is not, if that takes too long."""
        ends = await ends_of(self._site.bootstrap, self._site.contract.jobs_topic)
        until = time.monotonic() + seconds
        while True:
            found = await self.look()
            open_ = [
                f"partition {place}: committed {found.get(place)} of {end}"
                for place, end in ends.items()
                if found.get(place, 0) != end
            ]
            if not open_ or time.monotonic() > until:
                return open_
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(errors.KafkaError):
                await self.look()
            await asyncio.sleep(SAMPLE_SECONDS)


async def ends_of(bootstrap: str, topic: str) -> dict[int, int]:
    """Return the end of each partition."""
    reader = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap)
    await reader.start()
    try:
        ends = await reader.end_offsets(reader.assignment())
    finally:
        await reader.stop()
    return {place.partition: end for place, end in ends.items()}


async def read_all(bootstrap: str, topic: str, partition: int | None = None) -> list[Any]:
    """Read a whole topic, or one partition of it: the records of each partition in order."""
    return [each async for each in _records(bootstrap, topic, partition)]


async def _records(
    bootstrap: str, topic: str, partition: int | None = None
) -> AsyncIterator[ConsumerRecord]:
    reader = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await reader.start()
    skip_unreadable(reader)  # whoever appended it knows what it is
    try:
        places = sorted(reader.assignment())
        assert places, f"{topic} was not found"
        wanted = [each for each in places if partition in {None, each.partition}]
        reader.pause(*(each for each in places if each not in wanted))
        ends = await reader.end_offsets(wanted)
        for place in wanted:
            while await reader.position(place) < ends[place]:
                for record in (await reader.getmany(place, timeout_ms=500)).get(place, []):
                    yield record
    finally:
        await reader.stop()


async def replies_of(site: FaultSite, tenant: str, partition: int | None = None) -> list[Logged]:
    """Read a tenant's reply topic, or one partition of it."""
    found = []
    topic = site.contract.replies_prefix + tenant
    async for each in _records(site.bootstrap, topic, partition):
        reply = decode_reply(each.value)
        if reply is None:
            continue
        # A million records: what they have in common is kept once.
        reply = replace(reply, job=intern(reply.job), worker=intern(reply.worker))
        found.append(Logged(tenant, each.partition, each.offset, each.timestamp, each.key, reply))
    return found


async def replies(site: FaultSite) -> list[Logged]:
    """Read every tenant's reply topic."""
    return [each for tenant in TENANTS for each in await replies_of(site, tenant)]


async def inputs(site: FaultSite) -> list[Input]:
    """Read the jobs topic, but for what aiokafka cannot."""
    found = []
    async for each in _records(site.bootstrap, site.contract.jobs_topic):
        name: Name | None
        kind: Kind
        try:
            request = decode_request(each.value)
        except DecodeError as error:
            name, kind = None, "broken"
            if error.kind == "job" and error.tenant is not None and error.job is not None:
                name = Name(error.tenant, error.job)
        else:
            name = Name(request.tenant, request.id)
            kind = "cancel" if isinstance(request, Cancel) else "job"
        found.append(Input(each.partition, each.offset, name, each.timestamp, kind))
    return found


async def dead_letters(site: FaultSite) -> list[Dead]:
    """Read the dead letters: which records they are of is told by their keys."""
    found = []
    async for each in _records(site.bootstrap, site.contract.dlq_topic):
        _, partition, offset = each.key.decode().rsplit("/", 2)
        found.append(Dead(int(partition), int(offset), each.timestamp))
    return found
