"""A worker's service without Kafka and without a model: every log is a list, the engine is a hand.

The pieces between them are the real ones. Tests feed records, let the engine bring tokens, and
read what stands in the logs.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Self

from schemas import (
    Job,
    ReplyRecord,
    VisibleStream,
    decode_reply,
    encode_request,
    reply_partition,
)
from worker.jobs import Partition, Record
from worker.metrics import Metrics
from worker.partitions import Membership, PartitionState
from worker.pipeline import build_pipeline
from worker.settings import load_settings
from worker.writer import AppendError, LogWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.engine.request import GenerationRequest, Output

REPLY_PARTITIONS = 4
JOBS = Partition("jobs", 0)


class MemoryWriter(LogWriter):
    """Appends to lists. Topics exist if they were named; appends fail when told to."""

    def __init__(self, tenants: Sequence[str]) -> None:
        self.logs: dict[tuple[str, int | None], list[tuple[bytes, bytes | None, Any]]] = (
            defaultdict(list)
        )
        self.topics = {f"replies.{tenant}" for tenant in tenants}
        self.failures: list[AppendError] = []  # the next appends fail with these
        self.held: asyncio.Event | None = None  # while set and clear, appends wait

    def known_partitions(self, topic: str) -> int | None:  # noqa: ARG002 - the parent's signature
        """Know nothing in advance, so that the look-up is part of every test."""
        return None

    async def partitions(self, topic: str) -> int | None:
        """Return the number of partitions of a topic that exists."""
        await asyncio.sleep(0)
        return REPLY_PARTITIONS if topic in self.topics else None

    def forget_missing(self, topic: str) -> None:
        """Nothing is remembered."""

    async def append(
        self,
        topic: str,
        partition: int | None,
        key: bytes,
        values: Sequence[bytes | None],
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Append all or fail."""
        await asyncio.sleep(0)
        if self.held is not None:
            await self.held.wait()
        if self.failures:
            raise self.failures.pop(0)
        for value in values:
            self.logs[topic, partition].append((key, value, dict(headers)))


class HandEngine:
    """Collects requests; the test answers them."""

    def __init__(self) -> None:
        self.requests: dict[int, GenerationRequest] = {}
        self.cancelled: list[int] = []
        self.submitted: list[list[GenerationRequest]] = []

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Take a batch."""
        self.submitted.append(list(requests))
        self.requests |= {request.key: request for request in requests}

    def cancel(self, key: int) -> None:
        """Drop one."""
        self.cancelled.append(key)
        self.requests.pop(key, None)


class BytePrompts:
    """One token a byte."""

    def encode(self, job: Job) -> tuple[int, ...]:
        """Return the bytes."""
        return job.token_ids or tuple((job.prompt or "").encode())


class Harness:
    """One worker's service, wired as the app does it."""

    def __init__(self, *, tenants: Sequence[str] = ("acme", "zeta"), **flags: Any) -> None:
        flags.setdefault("window_ms", 0)
        self.settings = load_settings(flags=flags).settings
        self.metrics = Metrics()
        self.writer = MemoryWriter(tenants)
        self.engine = HandEngine()
        pipeline = build_pipeline(
            settings=self.settings,
            worker="w1",
            base="tiny",
            writer=self.writer,
            engine=self.engine,
            prompts=BytePrompts(),
            adapters=None,
            metrics=self.metrics,
        )
        self.service = pipeline.service
        self.dispatcher = pipeline.dispatcher
        self.answers = pipeline.answers
        self.offsets = itertools.count()
        self.assignments = itertools.count(1)
        self.state = self.assign(generation=3)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.dispatcher.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.answers.stop()
        self.dispatcher.close()

    def assign(self, *, generation: int, source: Partition = JOBS) -> PartitionState:
        """Win a partition."""
        membership = Membership(next(self.assignments), generation, "member")
        self.state = PartitionState(source, membership, end_offset=0)
        self.service.on_assigned([self.state])
        return self.state

    def send(self, value: bytes | Job | None, *, age_ms: float = 0, topic: str = "jobs") -> int:
        """Deliver one record; return its offset."""
        if isinstance(value, Job):
            value = encode_request(value)
        offset = next(self.offsets)
        record = Record(
            source=Partition(topic, 0),
            offset=offset,
            timestamp_ms=int(time.time() * 1_000 - age_ms),
            key=b"key",
            value=value,
            headers=[("traceparent", b"00-1")],
        )
        assert self.state.read(offset)
        self.service.on_records(self.state, [record])
        return offset

    async def settle(self, rounds: int = 50) -> None:
        """Let everything that can happen without new input happen."""
        for _ in range(rounds):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)  # the tokenising thread
        for _ in range(rounds):
            await asyncio.sleep(0)

    def step(self, *outputs: Output) -> None:
        """Bring outputs as the engine's thread does."""
        self.service.on_outputs(outputs)

    def key_of(self, prompt: str) -> int:
        """Return the engine's key of a running job, by its prompt."""
        wanted = tuple(prompt.encode())
        return next(key for key, each in self.engine.requests.items() if each.prompt_ids == wanted)

    def replies(self, tenant: str, job: str, partition: int | None = None) -> list[ReplyRecord]:
        """Return a job's records, in log order."""
        where = reply_partition(job, REPLY_PARTITIONS) if partition is None else partition
        log = self.writer.logs[f"replies.{tenant}", where]
        records = [decode_reply(value) for key, value, _ in log if key == job.encode() and value]
        return [record for record in records if record is not None]

    def visible(self, tenant: str, job: str) -> VisibleStream:
        """Return what a reader sees of a job."""
        stream = VisibleStream()
        for record in self.replies(tenant, job):
            stream.feed(record)
        return stream

    @property
    def dead_letters(self) -> list[tuple[bytes, bytes | None, dict[str, bytes]]]:
        """Return key, value and headers of all dead letters."""
        return self.writer.logs["jobs.dlq", None]
