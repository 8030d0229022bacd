"""Two brokers of one cluster: what groups commit lies on the first, which does not die."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient

from tests.support.fault_broker import FirstKafka, SecondKafka

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TRIES: Final = 100
PAUSE_SECONDS: Final = 0.2


@asynccontextmanager
async def two_brokers(folder: Path) -> AsyncIterator[tuple[FirstKafka, SecondKafka]]:
    """Run both, the second only once all coordinators are the first's."""
    for name in ("one", "two"):
        (folder / name).mkdir()
    async with FirstKafka(folder / "one") as first:
        await _keep_groups(first.bootstrap)
        async with SecondKafka(folder / "two", first) as second:
            yield first, second


async def _keep_groups(bootstrap: str) -> None:
    """Have the topic of the groups' offsets made: its partitions stay where they are made."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        for _ in range(TRIES):
            try:
                await admin.find_coordinator("any")
            except errors.GroupCoordinatorNotAvailableError:
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return
        raise AssertionError("no broker coordinates groups")
    finally:
        await admin.close()
