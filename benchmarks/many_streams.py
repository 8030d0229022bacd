"""Measure what open streams of many tenants cost one connection: memory a stream, CPU a token.

    python -m benchmarks.many_streams    # writes many_streams.csv

A real Kafka; each tenant has a reply topic of one partition and the same number of streams. First
all streams are begun, each by its job; what this process grew by is theirs. Then another process
writes all answers, a token a record, as fast as it can, and this one reads them; what its event
loop's thread used is CPU time, however busy the machine is.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import time
from typing import TYPE_CHECKING

import psutil

from aril import Connection, TokensEvent
from aril.worker.topics.admin import Contract, TopicPlan, ensure_topics
from benchmarks.record import Row
from benchmarks.stack import keep_measured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aril import Stream

QUESTION = "many_streams"
SIZES = ((1, 1_000), (1_000, 10))  # tenants, streams of each
TOKENS = 200_000  # of all streams together
AT_ONCE = 200  # streams that are begun
SETTLE_SECONDS = 2.0


async def begin(connection: Connection, tenants: int, streams: int) -> list[Stream]:
    """Begin every stream."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(tenant: str, number: int) -> Stream:
        async with room:
            return await connection.client(tenant).stream("x", job_id=f"j{number}").start()

    return await asyncio.gather(
        *(one(f"t{tenant}", number) for number in range(streams) for tenant in range(tenants))
    )


async def read(stream: Stream, tokens: int) -> None:
    """Read an answer, and see that all of it has come."""
    count = 0
    async for event in stream:
        count += len(event.ids) if isinstance(event, TokensEvent) else 0
    if count != tokens:
        raise RuntimeError(f"{stream.job}: {count} tokens of {tokens}")


async def measure(bootstrap: str, tenants: int, streams: int) -> list[Row]:
    """Measure one size."""
    prefix = f"r{tenants}-{streams}."
    contract = Contract(jobs_topic="jobs", dlq_topic="jobs.dlq", replies_prefix=prefix)
    names = [f"t{number}" for number in range(tenants)]
    await ensure_topics(
        bootstrap, contract, names, TopicPlan(jobs_partitions=1, reply_partitions=1)
    )
    process, tokens = psutil.Process(), TOKENS // (tenants * streams)
    async with Connection(bootstrap, replies_prefix=prefix) as connection:
        gc.collect()
        before, cpu = process.memory_info().rss, time.process_time()
        opened = await begin(connection, tenants, streams)
        await asyncio.sleep(SETTLE_SECONDS)
        gc.collect()
        held = process.memory_info().rss - before
        began = time.process_time() - cpu
        cpu = time.process_time()
        await asyncio.sleep(SETTLE_SECONDS)
        idle = (time.process_time() - cpu) / SETTLE_SECONDS
        arguments = (bootstrap, prefix, *map(str, (tenants, streams, tokens)))
        cpu, begun = time.process_time(), time.monotonic()
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.reply_writer", *arguments
        )
        await asyncio.gather(*(read(stream, tokens) for stream in opened))
        used, lasted = time.process_time() - cpu, time.monotonic() - begun
        await writer.wait()
    return [*rows_of(tenants, streams, tokens, (held, began, idle, used, lasted))]


def rows_of(tenants: int, streams: int, tokens: int, found: tuple[float, ...]) -> Iterator[Row]:
    """Make the CSV's rows of one size."""
    held, began, idle, used, lasted = found
    count = tenants * streams
    row = functools.partial(
        Row.of,
        question=QUESTION,
        provider="aril",
        x=f"{tenants} tenants, {count} streams",
        config=f"one reply partition a tenant, {tokens} tokens a stream, one a record",
    )
    yield row([held / count], metric="memory of an open stream", unit="B")
    yield row([began / count * 1e6], metric="CPU to begin a stream", unit="us")
    yield row([idle * 100], metric="CPU while nothing comes", unit="%")
    yield row([used / (count * tokens) * 1e6], metric="CPU of a token", unit="us")
    yield row([count * tokens / lasted], metric="tokens/s", unit="1/s")


async def measure_all(bootstrap: str) -> list[Row]:
    """Measure every size."""
    return [row for size in SIZES for row in await measure(bootstrap, *size)]


if __name__ == "__main__":
    keep_measured(QUESTION, measure_all)
