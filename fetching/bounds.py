"""Where logs begin and end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aril.fetching.leaders import Leaders
from aril.fetching.offsets import EARLIEST, LATEST, Offsets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka.client import AIOKafkaClient

    from aril.fetching.place import Place


async def log_bounds(client: AIOKafkaClient, places: Iterable[Place]) -> dict[Place, range]:
    """Return the offsets that each partition holds, up to what its next record will get.

    Raises Kafka's errors, that of a topic which is not there included.
    """
    asked = [*places]
    leaders = Leaders(client)
    offsets = Offsets(client, leaders)
    try:
        # The start first: what is deleted meanwhile makes no range that ends before it begins.
        starts = await offsets.find_all(asked, EARLIEST)
        ends = await offsets.find_all(asked, LATEST)
    finally:
        await asyncio.gather(offsets.close(), leaders.close())
    return {each: range(starts[each], ends[each]) for each in asked}
