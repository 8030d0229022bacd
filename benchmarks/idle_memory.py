"""Measure what an idle worker holds that knows many partitions and tenants, without a model.

    python -m benchmarks.idle_memory    # some five minutes; writes idle_memory.csv

A real Kafka with a reply topic for each tenant, one worker whose engine answers at once
(`benchmarks.instant`; torch is not imported). Jobs of all tenants in turn go through all partitions
until the worker has forgotten some of them again; then it is left alone for a while. The same once
more is to find nothing that still grows. Beside it: what importing torch costs a process.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Final

import psutil
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from aril.schemas import Job, Sampling, encode_request
from aril.worker.topics.admin import TopicPlan, ensure_topics
from benchmarks.record import Row
from benchmarks.stack import PACED, Stack, keep_measured

if TYPE_CHECKING:
    from collections.abc import Sequence

QUESTION: Final = "idle_memory"
PARTITIONS: Final = 1_000
TENANTS: Final = 10_000
JOBS: Final = 240_000  # a round: more than are remembered
ROUNDS: Final = 2
JOBS_AT_ONCE: Final = 5_000
TOPICS_AT_ONCE: Final = 250  # a controller takes no more than so many records in a request
IDLE_SECONDS: Final = 30.0
DONE_SECONDS: Final = 900.0
TOLD: Final = "import psutil{}; print(psutil.Process().memory_info().rss)"
MB: Final = 1_000_000


async def make_topics(stack: Stack, tenants: Sequence[str]) -> None:
    """Create the tenants' reply topics, some at a time."""
    plan = TopicPlan(jobs_partitions=stack.partitions, reply_partitions=stack.reply_partitions)
    for at in range(0, len(tenants), TOPICS_AT_ONCE):
        some = tenants[at : at + TOPICS_AT_ONCE]
        await ensure_topics(stack.bootstrap, stack.contract, some, plan)


async def send(stack: Stack, jobs: range) -> None:
    """Put jobs into the queue, each tenant's and each partition's in turn, not all at once."""
    async with AIOKafkaProducer(bootstrap_servers=stack.bootstrap, linger_ms=20) as producer:
        for at in range(jobs.start, jobs.stop, JOBS_AT_ONCE):
            sent = []
            for number in range(at, min(at + JOBS_AT_ONCE, jobs.stop)):
                tenant = stack.tenants[number % len(stack.tenants)]
                sampling = Sampling(max_tokens=1)
                job = Job(id=f"j{number}", tenant=tenant, prompt="x", sampling=sampling)
                place = number % stack.partitions
                sent.append(
                    await producer.send(
                        stack.contract.jobs_topic, encode_request(job), job.id.encode(), place
                    )
                )
            await asyncio.gather(*sent)


async def finished(stack: Stack, jobs: int) -> None:
    """Wait until the group has committed so many jobs."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(DONE_SECONDS):
            while True:
                told = await admin.list_consumer_group_offsets(stack.group)
                if sum(each.offset for each in told.values()) >= jobs:
                    return
                await asyncio.sleep(1.0)
    finally:
        await admin.close()


def row(provider: str, metric: str, x: str, resident: int) -> Row:
    """Make one of the CSV's rows."""
    return Row.of(
        [resident / MB],
        question=QUESTION,
        provider=provider,
        metric=metric,
        x=x,
        unit="MB",
        config=f"{PARTITIONS} partitions, {TENANTS} tenants, 1 token a job, 64 rows",
    )


async def measure(bootstrap: str) -> list[Row]:
    """Measure the worker, then the libraries."""
    names = [f"t{number}" for number in range(TENANTS)]
    stack = Stack(bootstrap, partitions=PARTITIONS, reply_partitions=1, tenants=names[:1])
    rows = []
    async with stack:
        await make_topics(stack, names)
        stack.tenants = names
        process = psutil.Process((await stack.add_worker(PACED, "0", max_rows=64)).pid)
        rows.append(row("worker", "resident, idle", "0 jobs", process.memory_info().rss))
        for part in range(1, ROUNDS + 1):
            begun = time.monotonic()
            await send(stack, range((part - 1) * JOBS, part * JOBS))
            await finished(stack, part * JOBS)
            print(f"{JOBS / (time.monotonic() - begun):.0f} jobs/s")
            jobs = f"{part * JOBS} jobs"
            rows.append(row("worker", "resident, at once", jobs, process.memory_info().rss))
            await asyncio.sleep(IDLE_SECONDS)
            rows.append(row("worker", "resident, idle", jobs, process.memory_info().rss))
    for provider, more in (("python", ""), ("torch imported", ", torch")):
        code = TOLD.format(more)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), stdout=asyncio.subprocess.PIPE
        )
        told, _ = await child.communicate()
        rows.append(row(provider, "resident", "nothing done", int(told)))
    return rows


if __name__ == "__main__":
    keep_measured(QUESTION, measure)
