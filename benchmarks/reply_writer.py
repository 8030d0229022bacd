"""Writes answers to reply topics as workers do, and runs no model: for what reads them.

    python -m benchmarks.reply_writer BOOTSTRAP PREFIX TENANTS STREAMS TOKENS

Tenants are t0, t1 …, each with one reply partition; its streams are the jobs j0, j1 … of it. One
token a record, all streams in turns, as fast as a producer goes; then each stream's end.
"""

from __future__ import annotations

import asyncio
import sys

from aiokafka import AIOKafkaProducer

from aril.schemas import DoneRecord, Epoch, Timings, TokensRecord, Usage, encode_reply, reply_topic

WORKER = "writer"
EPOCH = Epoch(1, 1)
WORD = "word "
LINGER_MS = 2
AHEAD = 5_000  # appends that are not acknowledged


def record(job: str, index: int, tokens: int) -> bytes:
    """Return the record of a token, or behind the last the terminal."""
    if index < tokens:
        return encode_reply(
            TokensRecord(job=job, epoch=EPOCH, worker=WORKER, index=index, ids=(index,), text=WORD)
        )
    return encode_reply(
        DoneRecord(
            job=job,
            epoch=EPOCH,
            worker=WORKER,
            index=index,
            text="",
            finish_reason="length",
            usage=Usage(1, index),
            adapter=None,
            digest=None,
            base="none",
            seed=0,
            timings=Timings(0.0, 0.0, 0.0),
        )
    )


async def write(bootstrap: str, prefix: str, tenants: int, streams: int, tokens: int) -> None:
    """Write every answer."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=LINGER_MS)
    await producer.start()
    topics = [reply_topic(prefix, f"t{number}") for number in range(tenants)]
    room = asyncio.Semaphore(AHEAD)
    try:
        for index in range(tokens + 1):
            for number in range(streams):
                job = f"j{number}"
                value = record(job, index, tokens)
                for topic in topics:
                    await room.acquire()
                    sent = await producer.send(topic, value, key=job.encode(), partition=0)
                    sent.add_done_callback(lambda _: room.release())
        await producer.flush()
    finally:
        await producer.stop()


if __name__ == "__main__":
    bootstrap, prefix, *sizes = sys.argv[1:]
    asyncio.run(write(bootstrap, prefix, *map(int, sizes)))
