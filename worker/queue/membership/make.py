"""Which membership a worker has, by its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.queue.membership.classic import ClassicMember
from aril.worker.queue.membership.interface import GroupProtocolError

if TYPE_CHECKING:
    from aril.worker.placement.consolidation import Consolidation
    from aril.worker.queue.membership.interface import GroupMember
    from aril.worker.settings import WorkerSettings


def make_group_member(
    settings: WorkerSettings, client_id: str, consolidation: Consolidation | None
) -> GroupMember:
    """Return one that was not started. Raises GroupProtocolError: a package is not there."""
    if settings.group_protocol == "classic":
        return ClassicMember(settings, client_id, consolidation)
    require_librdkafka()
    from aril.worker.queue.membership.consumer import (  # noqa: PLC0415 - an extra
        ConsumerMember,
    )

    return ConsumerMember(settings, client_id)


def require_librdkafka() -> None:
    """Raise GroupProtocolError where the package of the protocol `consumer` is not installed."""
    try:
        import confluent_kafka.aio  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise GroupProtocolError(
            "ARIL_GROUP_PROTOCOL=consumer needs librdkafka: pip install 'aril[consumer-protocol]'",
            setting=True,
        ) from None
