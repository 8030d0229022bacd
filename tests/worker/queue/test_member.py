"""How the group's member is set up."""

from __future__ import annotations

import pytest
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from aril.worker.queue.member import make_member
from aril.worker.settings import load_settings


@pytest.mark.parametrize(
    ("session_ms", "heartbeat_ms"), [(10_000, 500), (6_000, 500), (1_000, 250)]
)
async def test_a_rebalance_waits_half_a_second_for_heartbeats(
    session_ms: int, heartbeat_ms: int
) -> None:
    """All members wait for the one that hears of it last; a short session has four at least."""
    settings = load_settings(flags={"session_timeout_ms": session_ms}).settings
    member = make_member(settings, "test", StickyPartitionAssignor)
    await member.stop()
    assert member._heartbeat_interval_ms == heartbeat_ms
