"""Whether a group has members of the other protocol. It must not: see docs/decisions/097.

A broker of Kafka 4 lets members of both into one group, and assigns by itself then: an assignor of
ours is never asked. So each worker looks before it joins, and at each assignment again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Literal

from aiokafka import errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.admin import DescribeGroupsRequest

from aril.connecting.sessions import renew_sessions
from aril.worker.observe.logs import get_logger
from aril.worker.queue.membership.interface import GroupProtocolError
from aril.worker.queue.membership.requests import GroupDescribeRequest

if TYPE_CHECKING:
    from aril.worker.settings import WorkerSettings

log = get_logger(__name__)

Protocol = Literal["classic", "consumer"]

ANSWER_SECONDS: Final = 5.0
NO_SUCH_GROUP: Final = 69  # of KIP-848: it may be one of the classic protocol
_CLASSIC_MEMBER: Final = 0
_EMPTY: Final = {"Empty", "Dead", ""}  # states of a classic group without members


async def look_before_joining(settings: WorkerSettings, client_id: str) -> None:
    """Look through a connection of its own, so that a worker in the wrong group disturbs nobody.

    Raises GroupProtocolError, and KafkaError where no broker answers.
    """
    client = AIOKafkaClient(
        bootstrap_servers=settings.bootstrap, client_id=client_id, **settings.kafka_security()
    )
    renew_sessions(client)
    try:
        await client.bootstrap()
        await refuse_mixed_group(client, settings.group, settings.group_protocol)
    finally:
        await client.close()


async def refuse_mixed_group(client: Any, group: str, protocol: Protocol) -> None:
    """Look at a group through a client of aiokafka. Raises GroupProtocolError.

    Where the brokers know nothing of KIP-848, or do not answer, there is nothing to say.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            others = await _others(client, node, group, protocol)
    except (errors.IncompatibleBrokerVersion, NotImplementedError):  # aiokafka's two ways to say so
        if protocol == "consumer":
            why = (
                "ARIL_GROUP_PROTOCOL=consumer needs brokers of Apache Kafka 4.0 or later (KIP-848)"
            )
            raise GroupProtocolError(why, setting=True) from None
        return
    except (errors.KafkaError, OSError, TimeoutError) as error:
        log.info("group_not_looked_at", error=type(error).__name__)
        return
    if others:
        other = "consumer" if protocol == "classic" else "classic"
        raise GroupProtocolError(
            f"group {group} has {others} members of the {other} protocol and this worker has"
            f" ARIL_GROUP_PROTOCOL={protocol}: stop all workers of the one before the other's start"
        )


async def _others(client: Any, node: int, group: str, protocol: Protocol) -> int:
    """Count the members of the other protocol; to a classic one, all in a group of KIP-848."""
    answer = await _ask(client, node, GroupDescribeRequest(group))
    code, *_, members, _, _ = answer.groups[0]
    if code == 0:
        types = [member[-2] for member in members]
        return len(types) if protocol == "classic" else types.count(_CLASSIC_MEMBER)
    if code != NO_SUCH_GROUP:
        raise errors.for_code(code)
    if protocol == "classic":
        return 0
    answer = await _ask(client, node, DescribeGroupsRequest([group]))
    code, _, state, _, _, members, *_ = answer.groups[0]
    return 0 if state in _EMPTY else len(members)


async def _ask(client: Any, node: int, request: Any) -> Any:
    return await client.send(node, request, group=ConnectionGroup.COORDINATION)
