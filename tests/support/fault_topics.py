"""Topics of a run's own: as `aril topics` makes them, but jobs stay packed as they were sent."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas import reply_topic
from tests.support.fault_fleet import PARTITIONS, FaultSite
from tests.support.fault_load import TENANTS
from worker.topics.admin import Contract, TopicPlan, ensure_topics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# The brokers' default: with it workers get what producers have packed, and unpack it themselves.
AS_SENT: Final = {"compression.type": "producer"}
FIRST_BROKER: Final = 1
SECOND_BROKER: Final = 2
LEADER_TRIES: Final = 100
LEADER_PAUSE_SECONDS: Final = 0.1


async def site_on(bootstrap: str, folder: Path, *, away: str | None = None) -> FaultSite:
    """Create topics of a name that nobody has.

    With `away` there are two brokers: that tenant's replies lie on the second, all else on the
    first.
    """
    stem = uuid.uuid4().hex[:6]
    contract = Contract(
        jobs_topic=f"jobs-{stem}", dlq_topic=f"dlq-{stem}", replies_prefix=f"replies-{stem}."
    )
    plan = TopicPlan(jobs_partitions=PARTITIONS, reply_partitions=PARTITIONS)
    wanted = contract.wanted(TENANTS, plan, [], 1)
    async with admin_of(bootstrap) as admin:
        if away is not None:
            theirs = reply_topic(contract.replies_prefix, away)
            for each in wanted:
                broker = SECOND_BROKER if each.name == theirs else FIRST_BROKER
                places = {number: [broker] for number in range(each.partitions)}
                await admin.create_topics([NewTopic(each.name, -1, -1, places, dict(each.config))])
            await _led(admin, {each.name for each in wanted})
        await ensure_topics(bootstrap, contract, list(TENANTS), plan)
        (jobs,) = (each for each in wanted if each.name == contract.jobs_topic)
        packed = ConfigResource(ConfigResourceType.TOPIC, jobs.name, dict(jobs.config) | AS_SENT)
        await admin.alter_configs([packed])
    return FaultSite(bootstrap, contract, folder, away)


async def _led(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    """Wait until each of these topics has its leaders."""
    for _ in range(LEADER_TRIES):
        led = {
            topic["topic"]
            for topic in await admin.describe_topics()
            if all(partition["leader"] >= 0 for partition in topic["partitions"])
        }
        if names <= led:
            return
        await asyncio.sleep(LEADER_PAUSE_SECONDS)
    raise AssertionError(f"no leaders for {sorted(names - led)}")


@asynccontextmanager
async def admin_of(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect an admin client."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()
