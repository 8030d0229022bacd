"""aiokafka's consumer as a member of the workers' group: how it is set up, and why so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiokafka import AIOKafkaConsumer

from aril.connecting.sessions import renew_sessions

if TYPE_CHECKING:
    from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor

    from aril.worker.settings import WorkerSettings

FETCH_WAIT_MS: Final = 100  # how late a resumed partition may be: it waits behind a long poll
METADATA_AGE_MS: Final = 30_000  # how late new partitions, and new tenants' topics, are noticed


def make_member(
    settings: WorkerSettings, client_id: str, assignor: type[AbstractPartitionAssignor] | None
) -> AIOKafkaConsumer:
    """Return a consumer that was not started; without an assignor it is in no group."""
    member = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap,
        client_id=client_id,
        group_id=None if assignor is None else settings.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        # An open transaction would hold up all tenants of its partition, docs/decisions/018.
        isolation_level="read_uncommitted",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        metadata_max_age_ms=METADATA_AGE_MS,
        session_timeout_ms=settings.session_timeout_ms,
        # A member learns of a rebalance by its heartbeat, and all others wait for the slowest: each
        # second, streams of a killed worker went on 0.1 to 0.5 s later (docs/scale.md).
        heartbeat_interval_ms=min(500, settings.session_timeout_ms // 4),
        rebalance_timeout_ms=settings.rebalance_timeout_ms,
        max_poll_interval_ms=300_000,
        # Exactly one: aiokafka joins the group once for each assignor that is configured.
        partition_assignment_strategy=() if assignor is None else (assignor,),
        **settings.kafka_security(),
    )
    renew_sessions(member._client)  # noqa: SLF001 - aiokafka has no other way to it
    return member
