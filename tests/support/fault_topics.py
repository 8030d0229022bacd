"""Topics of a run's own: as `aril topics` makes them, but jobs stay packed as they were sent."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from aril.worker.topics.admin import Contract, TopicPlan, ensure_topics
from tests.support.fault_fleet import PARTITIONS, FaultSite
from tests.support.fault_load import TENANTS
from tests.support.two_brokers import admin_of, place_topics

if TYPE_CHECKING:
    from pathlib import Path

# The brokers' default: with it workers get what producers have packed, and unpack it themselves.
AS_SENT: Final = {"compression.type": "producer"}


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
            await place_topics(bootstrap, contract, TENANTS, plan, away=away)
        await ensure_topics(bootstrap, contract, list(TENANTS), plan)
        (jobs,) = (each for each in wanted if each.name == contract.jobs_topic)
        packed = ConfigResource(ConfigResourceType.TOPIC, jobs.name, dict(jobs.config) | AS_SENT)
        await admin.alter_configs([packed])
    return FaultSite(bootstrap, contract, folder, away)
