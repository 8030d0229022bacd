"""A client that was installed without cramjam, and replies that a broker has packed."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer

if TYPE_CHECKING:
    from tests.support.brokers import Kafka

pytestmark = pytest.mark.kafka

READ = """
import asyncio, sys
sys.modules["cramjam"] = None  # not installed
from aril.kafka import KafkaTransport
from aril.transport import Place, Unreadable

async def main(bootstrap, topic):
    transport = KafkaTransport(bootstrap)
    await transport.open()
    transport.follow(Place(topic, 0), 0)
    count = 0
    try:
        while count < 2:
            count += len(await transport.poll())
    except Unreadable as error:
        print(error)
    await transport.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_it_is_told_and_nothing_is_left_out(kafka: Kafka, topic: str) -> None:
    """The reader raises, and names the extra that is missing; it does not go on behind."""
    for packed in (None, "lz4", None):
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=packed)
        await producer.start()
        await producer.send_and_wait(topic, str(packed).encode() * 50, partition=0)
        await producer.stop()
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READ, kafka.bootstrap, topic, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await reader.communicate()
    assert told.decode().endswith("install aril-client[compression]\n")
