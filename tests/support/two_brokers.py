"""Two brokers of one cluster: what groups commit lies on the first, which does not die."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from aril.schemas import reply_topic
from tests.support.fault_broker import FirstKafka, SecondKafka

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from aril.worker.topics.admin import Contract, TopicPlan

FIRST: Final = 1
SECOND: Final = 2
TRIES: Final = 100
PAUSE_SECONDS: Final = 0.2


@asynccontextmanager
async def two_brokers(folder: Path) -> AsyncIterator[tuple[FirstKafka, SecondKafka]]:
    """Run both, the second only once all coordinators are the first's."""
    for name in ("one", "two"):
        (folder / name).mkdir()
    async with FirstKafka(folder / "one") as first:
        async with admin_of(first.bootstrap) as admin:
            await _keep_groups(admin)
        async with SecondKafka(folder / "two", first) as second:
            yield first, second


async def place_topics(
    bootstrap: str, contract: Contract, tenants: Sequence[str], plan: TopicPlan, *, away: str
) -> None:
    """Create a contract's topics: one tenant's replies on the second broker, the rest on the first.

    As `aril topics` does it, but that each partition has one replica, at its place.
    """
    theirs = reply_topic(contract.replies_prefix, away)
    wanted = contract.wanted(tenants, plan, [], 1)
    async with admin_of(bootstrap) as admin:
        for topic in wanted:
            broker = SECOND if topic.name == theirs else FIRST
            places = {number: [broker] for number in range(topic.partitions)}
            await admin.create_topics([NewTopic(topic.name, -1, -1, places, dict(topic.config))])
        await _led(admin, {topic.name for topic in wanted})


@asynccontextmanager
async def admin_of(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect an admin client."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _keep_groups(admin: AIOKafkaAdminClient) -> None:
    """Have the topic of the groups' offsets made: its partitions stay where they are made."""
    for _ in range(TRIES):
        try:
            await admin.find_coordinator("any")
        except errors.GroupCoordinatorNotAvailableError:
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return
    raise AssertionError("no broker coordinates groups")


async def _led(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    """Wait until each of these topics has its leaders."""
    led: set[str] = set()
    for _ in range(TRIES):
        led = {
            topic["topic"]
            for topic in await admin.describe_topics()
            if all(partition["leader"] >= 0 for partition in topic["partitions"])
        }
        if names <= led:
            return
        await asyncio.sleep(PAUSE_SECONDS)
    raise AssertionError(f"no leaders for {sorted(names - led)}")
