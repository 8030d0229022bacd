"""A worker's lifecycle without Kafka or a model: every log is a list, the engine is a hand.

The pieces between them are the real ones. Tests feed records, let the engine bring tokens, and
read what stands in the logs.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from aril.schemas import (
    Job,
    ReplyRecord,
    VisibleStream,
    decode_reply,
    encode_request,
    reply_partition,
)
from aril.worker.engine.request import Output
from aril.worker.intake.tenant_limits import TenantLimits
from aril.worker.job import Partition, Prompt, Record
from aril.worker.lifecycle import Lifecycle
from aril.worker.observe.metrics import Metrics
from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.replies.broker_clock import BrokerClock
from aril.worker.replies.producer import APPEND_SECONDS, AppendError, LogWriter
from aril.worker.settings import load_settings
from aril.worker.startup import read_tenant_keys
from aril.worker.takeover.readback import LogRecord
from aril.worker.tracing import NoTracing
from aril.worker.wiring import Surroundings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aril.worker.batching.asked_adapters import AdapterSource
    from aril.worker.batching.preparation import PromptEncoder, Renderer
    from aril.worker.constraints.cache import Compiler
    from aril.worker.engine.request import GenerationRequest
    from aril.worker.queue.ledger import Checkpoint
    from aril.worker.takeover.readback import LogReader
    from aril.worker.tracing import Tracing

REPLY_PARTITIONS = 4
JOBS = Partition("jobs", 0)


class MemoryWriter(LogWriter):
    """Appends to lists. Topics exist if they were named; appends fail when told to."""

    def __init__(self, tenants: Sequence[str]) -> None:
        self.logs: dict[tuple[str, int | None], list[tuple[bytes, bytes | None, Any]]] = (
            defaultdict(list)
        )
        self.clock = BrokerClock()
        self.clock.appended(0, sent_ms=0, heard_ms=0)  # the brokers' clock is ours
        self.topics = {f"replies.{tenant}" for tenant in tenants}
        self.failures: list[AppendError] = []  # the next appends fail with these
        self.held: asyncio.Event | None = None  # while set and clear, appends wait
        self.down: dict[str, asyncio.Event] = {}  # topics whose appends fail once that is set
        self.tried: list[str] = []  # topics, one an append

    def known_partitions(self, topic: str) -> int | None:  # noqa: ARG002 - the parent's signature
        """Know nothing in advance, so that the look-up is part of every test."""
        return None

    async def partitions(self, topic: str) -> int | None:
        """Return the number of partitions of a topic that exists."""
        await asyncio.sleep(0)
        return REPLY_PARTITIONS if topic in self.topics else None

    def forget_missing(self, topic: str) -> None:
        """Nothing is remembered."""

    async def append_all(
        self,
        topic: str,
        partition: int | None,
        records: Sequence[tuple[bytes, bytes | None]],
        headers: Sequence[tuple[str, bytes | None]] = (),
        *,
        seconds: float = APPEND_SECONDS,
    ) -> list[int]:
        """Append all or fail; give up in time, without a clock where that is no time at all."""
        await asyncio.sleep(0)
        self.tried.append(topic)
        if not seconds and topic in self.down:
            raise AppendError("TimeoutError", hopeless=False)
        if self.held is not None:
            await self.held.wait()
        if topic in self.down:
            await self.down[topic].wait()
            raise AppendError("KafkaTimeoutError", hopeless=False)
        if self.failures:
            raise self.failures.pop(0)
        log = self.logs[topic, partition]
        first = len(log)
        log += [(key, value, dict(headers)) for key, value in records]
        return list(range(first, len(log)))


class MemoryReader:
    """Reads what a MemoryWriter wrote. Logs may be told to begin later than at 0."""

    def __init__(self, writer: MemoryWriter) -> None:
        self._writer = writer
        self.starts: dict[Partition, int] = {}
        self.reads: list[Partition] = []
        self.handed_out = 0  # records, over all reads

    async def start_of(self, source: Partition) -> int:
        """Return the first offset that the log holds."""
        return self.starts.get(source, 0)

    async def end_of(self, source: Partition) -> int:
        """Return what the next record gets."""
        return len(self._writer.logs[source.topic, source.partition])

    async def offset_at(self, source: Partition, timestamp_ms: int) -> int:  # noqa: ARG002 - no times here
        """Return where a log begins."""
        return self.starts.get(source, 0)

    async def read(
        self, source: Partition, start: int, last: int, take: Callable[[LogRecord], None]
    ) -> None:
        """Hand out every record from start to last."""
        await asyncio.sleep(0)
        self.reads.append(source)
        log = self._writer.logs[source.topic, source.partition]
        for offset in range(start, last + 1):
            key, value, _ = log[offset]
            self.handed_out += 1
            take(LogRecord(offset, key, value))


class HandEngine:
    """Collects requests; the test answers them."""

    def __init__(self) -> None:
        self.requests: dict[int, GenerationRequest] = {}
        self.cancelled: list[int] = []
        self.submitted: list[list[GenerationRequest]] = []
        self.lost = False

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

    def encode(self, job: Job, rendered: str | None = None, **_: object) -> Prompt:
        """Return the bytes."""
        ids = job.token_ids or tuple((rendered or job.prompt or "").encode())
        return Prompt(ids, job.sampling.longest)


class Harness:
    """One worker's lifecycle, wired as the app does it."""

    def __init__(
        self,
        *,
        tenants: Sequence[str] = ("acme", "zeta"),
        prompts: PromptEncoder | None = None,
        adapters: AdapterSource | None = None,
        constraints: Compiler | None = None,
        templates: Renderer | None = None,
        why_refused: Callable[[str], str | None] = lambda _: None,
        first_use: Callable[[str], Awaitable[str | None]] | None = None,
        base_digest: str | None = None,
        limits: TenantLimits | None = None,
        jobs_reader: LogReader | None = None,
        worker: str = "w1",
        writer: MemoryWriter | None = None,
        tracing: Tracing | None = None,
        **flags: Any,
    ) -> None:
        """Wire it. With the `writer` of another one, it is a second worker on the same logs."""
        flags.setdefault("window_ms", 0)
        self.settings = load_settings(flags=flags).settings
        self.metrics = Metrics()
        self.writer = writer or MemoryWriter(tenants)
        self.reader = MemoryReader(self.writer)
        self.engine = HandEngine()
        surroundings = Surroundings(
            worker=worker,
            base="tiny",
            base_digest=base_digest,
            writer=self.writer,
            reader=self.reader,
            engine=self.engine,
            prompts=prompts or BytePrompts(),
            adapters=adapters,
            constraints=constraints,
            templates=templates,
            prove=self._prove,
            keys=read_tenant_keys(self.settings, self.metrics),
            why_refused=why_refused,
            first_use=first_use,
            limits=limits or TenantLimits(),
            jobs_reader=jobs_reader,
            tracing=tracing or NoTracing(),
        )
        self.lifecycle = Lifecycle(self.settings, self.metrics, surroundings)
        self.dispatcher = self.lifecycle.parts.dispatcher
        self.answers = self.lifecycle.parts.answers
        self.owned = True  # what a proof of ownership says
        self.bugs = 0  # events without a row that a test brings about
        self.offsets = itertools.count()
        self.appended_ms: dict[tuple[Partition, int], int] = {}
        self.parted: dict[Partition, PartitionState] = {}
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
        await self.lifecycle.parts.elsewhere.stop()
        await self.dispatcher.stop()
        await self.lifecycle.parts.notices.stop()
        self.dispatcher.close()
        assert self.unexpected_events == self.bugs

    async def _prove(self, state: PartitionState, base: int) -> bool:
        if not self.owned or state.revoked:
            return False
        state.base = base
        return True

    def assign(
        self,
        *,
        generation: int,
        source: Partition = JOBS,
        end_offset: int = 0,
        member: str = "member",
        committed: Checkpoint | None = None,
    ) -> PartitionState:
        """Win a partition; records below end_offset are not fresh."""
        membership = Membership(next(self.assignments), generation, member)
        earlier = self.parted.pop(source, None)
        self.state = PartitionState(source, membership, end_offset, committed, earlier)
        self.lifecycle.on_assigned([self.state])
        return self.state

    def send(self, value: bytes | Job | None, *, age_ms: float = 0, topic: str = "jobs") -> int:
        """Deliver one record that is new; return its offset."""
        offset = next(self.offsets)
        self.deliver(self.state, offset, value, age_ms=age_ms, topic=topic)
        return offset

    def deliver(
        self,
        state: PartitionState,
        offset: int,
        value: bytes | Job | None,
        *,
        age_ms: float = 0,
        topic: str = "jobs",
    ) -> None:
        """Deliver a record, perhaps once more."""
        source = Partition(topic, 0)
        appended_ms = int(time.time() * 1_000 - age_ms)
        record = Record(
            source=source,
            offset=offset,
            timestamp_ms=self.appended_ms.setdefault((source, offset), appended_ms),
            key=b"key",
            value=encode_request(value) if isinstance(value, Job) else value,
            headers=[("traceparent", b"00-1")],
        )
        assert state.read(offset)
        self.lifecycle.on_records(state, [record])

    def put(self, record: Record) -> int:
        """Deliver a record as it is, but for its offset, which is the next one; return that."""
        offset = next(self.offsets)
        assert self.state.read(offset)
        self.lifecycle.on_records(self.state, [replace(record, offset=offset)])
        return offset

    def revoke(self, *states: PartitionState) -> None:
        """Lose partitions."""
        self.parted = {state.source: state for state in states}
        for state in states:
            state.revoked = True
        self.lifecycle.on_revoked(states)

    @property
    def unexpected_events(self) -> float:
        """How many events had no row in the table."""
        return self.metrics.registry.get_sample_value("aril_unexpected_events_total") or 0.0

    async def settle(self, rounds: int = 50) -> None:
        """Let everything that can happen without new input happen."""
        await self._turn(rounds)
        await asyncio.sleep(0.01)  # for what a timer ends
        self.lifecycle.tick()
        await self._turn(rounds)

    async def until(self, true: Callable[[], bool]) -> None:
        """Let the worker go on until something is so."""
        for _ in range(500):
            if true():
                return
            await self.settle()
        raise AssertionError("it never was")

    async def _turn(self, rounds: int) -> None:
        loop, preparation = asyncio.get_running_loop(), self.dispatcher._places._preparation
        for last in (False, True):
            for _ in range(rounds):
                await asyncio.sleep(0)
            if not last:  # what the tokenising thread was given is done, however busy the machine
                await loop.run_in_executor(preparation._tokenizing, int)

    @property
    def committable(self) -> int | None:
        """The offset below which everything is finished; None before anything was read."""
        ledger = self.state.ledger
        return None if ledger is None else ledger.position

    @property
    def running(self) -> list[str]:
        """The prompts in the engine."""
        return [
            bytes(each.prompt_ids).decode()
            for key, each in self.engine.requests.items()
            if self.dispatcher.find(key)
        ]

    def step(self, *outputs: Output) -> None:
        """Bring outputs as the engine's thread does."""
        self.lifecycle.on_outputs(outputs)

    async def answer(self, prompt: str, *ids: int, finish: bool = True) -> None:
        """Bring tokens of a running job, one a step."""
        key = self.key_of(prompt)
        for place, token in enumerate(ids, 1):
            last = finish and place == len(ids)
            self.step(Output(key, (token,), "x", finish="stop" if last else None))
            await self.settle()

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

    def visible(self, tenant: str, job: str, partition: int | None = None) -> VisibleStream:
        """Return what a reader sees of a job."""
        stream = VisibleStream()
        for record in self.replies(tenant, job, partition):
            stream.feed(record)
        return stream

    @property
    def dead_letters(self) -> list[tuple[bytes, bytes | None, dict[str, bytes]]]:
        """Return key, value and headers of all dead letters."""
        return self.writer.logs["jobs.dlq", None]
