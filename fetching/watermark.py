"""How long a log is, by what a fetch says of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiokafka import errors
from aiokafka.protocol.fetch import FetchRequest

if TYPE_CHECKING:
    from aiokafka.client import AIOKafkaClient

    from aril.fetching.place import Place

WAIT_MS: Final = 1  # some brokers say nothing at all of a partition when they do not wait
MOST_WAIT_MS: Final = 1_024
_FEWEST_BYTES: Final = 1  # whatever there is: only the watermark is looked at


async def high_watermark(client: AIOKafkaClient, node: int, place: Place, offset: int) -> int:
    """Return the offset that a partition's next record will get, as its leader `node` has it.

    `offset` lies in the log, or at its end. Raises Kafka's errors.
    """
    wait_ms = WAIT_MS
    while True:
        asked = [(place.topic, [(place.partition, offset, _FEWEST_BYTES)])]
        response = await client.send(node, FetchRequest(wait_ms, 0, _FEWEST_BYTES, 0, asked))
        for _, partitions in response.topics or ():
            for _, code, watermark, *_ in partitions:
                if (kind := errors.for_code(code)) is not errors.NoError:
                    raise kind(f"{place.topic}/{place.partition}")
                return int(watermark)
        if wait_ms >= MOST_WAIT_MS:
            raise errors.KafkaTimeoutError(f"nothing is told of {place.topic}/{place.partition}")
        await asyncio.sleep(0)
        wait_ms *= 2
