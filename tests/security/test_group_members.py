"""A member by the protocol of KIP-848 at a secured broker: librdkafka shows who it is, too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.brokers import Kafka
from tests.support.members import Member, send, until
from tests.support.secure_kafka import SESSION_SECONDS

if TYPE_CHECKING:
    from tests.security.conftest import Site


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.parametrize("door", ["scram", "oauth"])
async def test_a_member_outlives_its_sessions_with_a_workers_rights(site: Site, door: str) -> None:
    """By password, or by a token and a certificate; what it commits is taken all along."""
    site.renew("worker", seconds=60)
    broker = site.broker
    way = (
        broker.by_password("worker") if door == "scram" else broker.by_token("worker", site.folder)
    )
    topic, plain = site.names["jobs_topic"], Kafka(broker.bootstrap, "apache")
    names = {"group": site.group, "dlq_topic": site.dlq, "replies_prefix": "replies."}
    await send(plain, topic, 4)
    async with Member(plain, topic, group_protocol="consumer", **names | way) as member:
        await until(lambda: len(member.seen.records) == 4)
        before = member.consumer.states
        await asyncio.sleep(2 * SESSION_SECONDS + 1)
        await send(plain, topic, 4, start=4)
        await until(lambda: len(member.seen.records) == 8)
        assert member.consumer.states == before
        assert member.seen.revoked == []
        state = member.held(1)
        state.finish_offset(0)
        await member.consumer.commit()
        assert state.committed is not None
