"""Measure what the gateway costs: tokens a second through one process, and what it adds to a token.

    python -m benchmarks.gateway    # writes gateway.csv

A real Kafka, one `aril gateway`, all on this machine.

* Beside a free engine: a thousand streams are opened; a process of its own appends all their
  replies, a record a token, as fast as the broker takes them; another one reads the streams. Tokens
  a second from the first to the last that is read, and tokens a CPU second of the gateway, which
  the neighbours on the machine change less.
* Added latency: a real worker whose engine steps at a fixed rate, 16 rows. Each token's text is the
  moment it was made; from there to the reader of the queue, and to the reader of HTTP, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import multiprocessing
import statistics
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from aril import TokensEvent
from aril.schemas import (
    Job,
    decode_request,
    reply_partition,
)
from benchmarks.record import Row
from benchmarks.reply_writer import WORD, record
from benchmarks.stack import PACED, Stack, cpu_seconds, keep_measured
from tests.support.asgi import parse_events
from tests.support.gateway_process import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

QUESTION: Final = "gateway"
TENANT: Final = "acme"
PARTITIONS: Final = 8
BATCH_BYTES: Final = 256 << 10
PATH: Final = "/v1/chat/completions"
ROWS: Final = 16
PACE: Final = 0.020
READ_BYTES: Final = 1 << 16
DONE: Final = b"data: [DONE]"


@dataclass(frozen=True)
class Flow:
    """What one run beside the free engine showed."""

    tokens_per_second: float
    tokens_per_cpu_second: float


# --- the free engine, a process


async def _append_all(bootstrap: str, names: dict[str, str], streams: int, tokens: int) -> None:
    consumer = AIOKafkaConsumer(
        names["jobs_topic"], bootstrap_servers=bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    jobs: list[str] = []
    while len(jobs) < streams:
        request = decode_request((await consumer.getone()).value)
        if isinstance(request, Job):
            jobs.append(request.id)
    await consumer.stop()
    topic = names["replies_prefix"] + TENANT
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES, enable_idempotence=False, acks=1
    )
    await producer.start()
    batches = {part: producer.create_batch() for part in range(PARTITIONS)}
    sent = []
    for index in range(tokens + 1):
        for job in jobs:
            key, part = job.encode(), reply_partition(job, PARTITIONS)
            value = record(job, index, tokens)
            if batches[part].append(key=key, value=value, timestamp=None) is None:
                sent.append(await producer.send_batch(batches[part], topic, partition=part))
                batches[part] = producer.create_batch()
                batches[part].append(key=key, value=value, timestamp=None)
    for part, batch in batches.items():
        sent.append(await producer.send_batch(batch, topic, partition=part))
    await asyncio.gather(*sent)
    await producer.stop()


def free_engine(bootstrap: str, names: dict[str, str], streams: int, tokens: int) -> None:
    """Be the process that answers so many jobs at once."""
    asyncio.run(_append_all(bootstrap, names, streams, tokens))


# --- the reader, a process


async def _read_one(host: str, port: int, marks: list[float]) -> int:
    reader, writer = await asyncio.open_connection(host, port, limit=READ_BYTES)
    body = json.dumps(
        {"model": "aril", "messages": [{"role": "user", "content": "x"}], "stream": True}
    )
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}".encode()
    )
    count, tail = 0, b""
    while DONE not in tail:
        data = await reader.read(READ_BYTES)
        if not data:
            raise RuntimeError("a stream broke off")
        # A piece of what was counted may be cut by the read: it is counted with the next one.
        seen = tail + data
        count += seen.count(_MARK) - tail.count(_MARK)
        tail = seen[-len(_MARK) - len(DONE) :]
        if count:
            marks[:] = [marks[0] if marks else time.monotonic(), time.monotonic()]
    writer.close()
    return count


_MARK: Final = f'"content":"{WORD}"'.encode()


async def _read_all(host: str, port: int, streams: int) -> tuple[int, float]:
    marks: list[float] = []
    counts = await asyncio.gather(*(_read_one(host, port, marks) for _ in range(streams)))
    return sum(counts), marks[1] - marks[0]


def reader(theirs: Connection, host: str, port: int, streams: int) -> None:
    """Be the process that opens and reads so many streams; tells tokens and seconds."""
    theirs.send(asyncio.run(_read_all(host, port, streams)))


# --- what is measured


def gateway_on(stack: Stack) -> GatewayProcess:
    """Return a gateway of a stack, not started."""
    return GatewayProcess(
        "gateway",
        stack.logs,
        bootstrap=stack.bootstrap,
        gateway_tenant=TENANT,
        **stack.names,
    )


async def flow(bootstrap: str, streams: int, tokens: int) -> Flow:
    """Run one flood through a gateway that was just started."""
    spawn = multiprocessing.get_context("spawn")
    async with Stack(
        bootstrap, partitions=PARTITIONS, reply_partitions=PARTITIONS, tenants=[TENANT]
    ) as stack:
        gateway = await stack.held.enter_async_context(gateway_on(stack))
        host, port = gateway.url.removeprefix("http://").rsplit(":", 1)
        ours, theirs = spawn.Pipe()
        processes = [
            spawn.Process(target=reader, args=(theirs, host, int(port), streams)),
            spawn.Process(target=free_engine, args=(bootstrap, stack.names, streams, tokens)),
        ]
        cpu = cpu_seconds(gateway.pid)
        for process in processes:
            process.start()
        try:
            count, seconds = await asyncio.to_thread(ours.recv)
            cpu = cpu_seconds(gateway.pid) - cpu
        finally:
            for process in processes:
                process.terminate()
                process.join()
    if count != streams * tokens:
        raise RuntimeError(f"{streams * tokens} tokens were appended, {count} were read")
    return Flow(count / seconds, count / cpu)


async def _latencies_of_queue(stack: Stack, tokens: int) -> list[float]:
    found: list[float] = []
    async with stack.clients() as (client,):

        async def one() -> None:
            options: Any = {"max_tokens": tokens}
            async for event in client.stream("x", sampling=options, job_id=uuid.uuid4().hex):
                if isinstance(event, TokensEvent):
                    now = time.monotonic_ns()
                    found.extend((now - int(made)) / 1e6 for made in event.text.split())

        await asyncio.gather(*(one() for _ in range(ROWS)))
    return found


async def _latencies_of_http(url: str, tokens: int) -> list[float]:
    host, port = url.removeprefix("http://").rsplit(":", 1)
    found: list[float] = []

    async def one() -> None:
        stream, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps({"model": "aril", "prompt": "x", "max_tokens": tokens, "stream": True})
        writer.write(
            f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
        await stream.readuntil(b"\r\n\r\n")
        while length := int((await stream.readline()).strip() or b"0", 16):
            block = await stream.readexactly(length + 2)
            now = time.monotonic_ns()
            for event in parse_events(block[:-2]):
                if event.data == "[DONE]":
                    continue
                made = event.json["choices"][0]["text"].split()
                found.extend((now - int(each)) / 1e6 for each in made)
        writer.close()

    await asyncio.gather(*(one() for _ in range(ROWS)))
    return found


async def latencies(
    bootstrap: str, tokens: int, runs: int
) -> list[tuple[list[float], list[float]]]:
    """Return the tokens' latencies in ms, by the queue and by HTTP, of each run."""
    async with Stack(
        bootstrap, partitions=PARTITIONS, reply_partitions=PARTITIONS, tenants=[TENANT]
    ) as stack:
        await stack.add_worker(PACED, str(PACE), max_rows=ROWS)
        gateway = await stack.held.enter_async_context(gateway_on(stack))
        found = []
        for run in range(runs + 1):
            by_queue = await _latencies_of_queue(stack, tokens)
            by_http = await _latencies_of_http(gateway.url, tokens)
            if not len(by_queue) == len(by_http) == ROWS * tokens:
                raise RuntimeError(f"{len(by_queue)} and {len(by_http)} of {ROWS * tokens} tokens")
            if run:  # the first is a warm-up
                found.append((by_queue, by_http))
        return found


def latency_rows(runs: Sequence[tuple[list[float], list[float]]], tokens: int) -> list[Row]:
    """Make the CSV's rows of latencies."""
    config = f"{ROWS} rows, {PACE * 1e3:g} ms a step, {tokens} tokens, {PARTITIONS} partitions"
    row = functools.partial(Row.of, question=QUESTION, x=ROWS, unit="ms", config=config)
    percentiles = [
        tuple(statistics.quantiles(each, n=100) for each in one_and_other) for one_and_other in runs
    ]
    rows = []
    for at, name in ((49, "p50"), (98, "p99")):
        by_queue = [queue[at] for queue, _ in percentiles]
        by_http = [http[at] for _, http in percentiles]
        added = [two - one for one, two in zip(by_queue, by_http, strict=True)]
        rows += [
            row(by_queue, provider="queue", metric=f"latency of a token, {name}"),
            row(by_http, provider="gateway", metric=f"latency of a token, {name}"),
            row(added, provider="gateway", metric=f"added to a token, {name}"),
        ]
    return rows


async def measure(bootstrap: str, streams: int, tokens: int, runs: int) -> list[Row]:
    """Measure both."""
    flows = [await flow(bootstrap, streams, tokens) for _ in range(runs)]
    config = f"{streams} streams x {tokens} tokens, a record each, {PARTITIONS} partitions"
    row = functools.partial(
        Row.of, question=QUESTION, provider="gateway", x=streams, unit="1/s", config=config
    )
    return [
        row([each.tokens_per_second for each in flows], metric="tokens/s"),
        row([each.tokens_per_cpu_second for each in flows], metric="tokens per CPU second"),
        *latency_rows(await latencies(bootstrap, tokens, runs), tokens),
    ]


def main() -> None:
    """Measure and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--runs", type=int, default=5)
    told = parser.parse_args()
    keep_measured(
        QUESTION,
        functools.partial(measure, streams=told.streams, tokens=told.tokens, runs=told.runs),
    )


if __name__ == "__main__":
    main()
