"""Producers that pack what they send, one for each codec that Kafka knows."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Self

from aiokafka import AIOKafkaProducer

from aril.kafka import CONTENT_TYPE, REQUEST_TIMEOUT_MS, kafka_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

CODECS: Final = ("gzip", "snappy", "lz4", "zstd")
LINGER_MS: Final = 10  # so that jobs come to share a batch


class Packers:
    """The producers of one topic's jobs; an async context manager."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._stack = AsyncExitStack()
        self._producers: dict[str, AIOKafkaProducer] = {}

    async def __aenter__(self) -> Self:
        for codec in CODECS:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
                compression_type=codec,
                linger_ms=LINGER_MS,
                acks="all",
                enable_idempotence=False,
            )
            await producer.start()
            self._stack.push_async_callback(producer.stop)
            self._producers[codec] = producer
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def send(
        self,
        codec: str,
        partition: int,
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]],
    ) -> None:
        """Append one record as `KafkaTransport.send` does, but packed."""
        with kafka_errors():
            await self._producers[codec].send_and_wait(
                self._topic,
                value,
                key=key,
                partition=partition,
                headers=[CONTENT_TYPE, *headers],
            )
