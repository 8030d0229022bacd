"""Bugs to put into a worker, each one that somebody has had: the fault harness has to notice."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiokafka.record.default_records import DefaultRecordBatch

import aril.fetching.packed
import aril.worker.intake.admission
import aril.worker.queue.consumer
from aril.schemas import ErrorCode, JobError
from aril.worker.intake import deadlines
from aril.worker.lifecycle import Lifecycle
from aril.worker.queue.assignment import PartitionState
from aril.worker.queue.commits import membership_of
from aril.worker.queue.held import HeldPartitions
from aril.worker.stages import Event
from aril.worker.takeover.claims import Claims
from aril.worker.takeover.rule import History, TakeOver
from tests.support.fault_engine import TaggedAdapters, TaggedEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.schemas import Job
    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.request import GenerationRequest, Output
    from aril.worker.job import Entry, Record
    from aril.worker.queue.assignment import Membership
    from aril.worker.queue.raw_batch import Part

SNAPPY = 2  # in a batch's attributes


def _commit_early() -> None:
    """Count a job as finished with its first token."""
    on_outputs, finish = Lifecycle.on_outputs, HeldPartitions.finish
    finished: set[Entry] = set()

    def patched(self: Lifecycle, outputs: Sequence[Output]) -> None:
        running = [self.parts.dispatcher.find(each.key) for each in outputs if each.ids]
        on_outputs(self, outputs)
        for entry in running:
            if entry is not None:
                self._held.finish(entry)

    def once(self: HeldPartitions, entry: Entry) -> None:
        if entry not in finished:
            finished.add(entry)
            finish(self, entry)

    Lifecycle.on_outputs = patched  # type: ignore[method-assign]
    HeldPartitions.finish = once  # type: ignore[method-assign]


def _never_claim() -> None:
    """Take every job for a fresh one."""

    def patched(self: Claims, entry: Entry) -> None:
        entry.owned = True
        self._happened(entry, Event.OURS)

    Claims.take_over = patched  # type: ignore[method-assign]


def _never_read_back() -> None:
    """Claim a job, and begin it from its first token all the same."""

    async def patched(self: Claims, source: Any, batch: Any) -> None:  # noqa: ARG001 - same
        for each in batch:
            each.prefix_lost = True
            each.takeover.prefix_unknown()

    Claims._read_back = patched  # type: ignore[method-assign]


def _one_generation() -> None:
    """Write under the same epoch as every other worker."""

    def patched(consumer: Any, number: int) -> Membership | None:
        found = membership_of(consumer, number)
        return None if found is None else replace(found, generation=1)

    aril.worker.queue.consumer.membership_of = patched  # type: ignore[attr-defined]


def _cancel_neighbours() -> None:
    """Take a cancel for the job of that id, whoever's it is."""

    def patched(self: PartitionState, tenant: str, job_id: str) -> Entry | None:  # noqa: ARG001
        return next((each for each in self.entries if each.job_id == job_id), None)

    PartitionState.find = patched  # type: ignore[method-assign]


def _adapters_by_name() -> None:
    """Give everybody the adapter that the first one meant by a name."""
    get = TaggedAdapters.get
    first: dict[str, str] = {}

    async def patched(self: TaggedAdapters, tenant: str, name: str) -> AdapterWeights:
        if "@" in name:
            return await get(self, tenant, name)
        return await get(self, first.setdefault(name, tenant), name)

    TaggedAdapters.get = patched  # type: ignore[method-assign]


def _hasty_deadlines() -> None:
    """Take a deadline for one of half the time."""
    asked = deadlines.deadline_of

    def patched(record: Record, job: Job | None, max_age_ms: float) -> float:
        return record.timestamp_ms + (asked(record, job, max_age_ms) - record.timestamp_ms) / 2

    aril.worker.intake.admission.deadline_of = patched  # type: ignore[attr-defined]


def _silent_reset() -> None:
    """Go on at index 0 behind a claim when a prefix is gone, as if nothing had been visible."""

    def patched(self: TakeOver) -> None:
        self.history = History()

    TakeOver.prefix_unknown = patched  # type: ignore[method-assign]


def _no_snappy() -> None:
    """Lack a codec, as a worker does that was built without it."""

    def missing(packed: object) -> bytes:
        raise NotImplementedError

    module = importlib.import_module(DefaultRecordBatch.__module__)  # perhaps in C
    module.snappy_decode = missing  # type: ignore[attr-defined]
    aril.fetching.packed._CODECS[SNAPPY] = missing


def _odd_ones_left_out() -> None:
    """Pass what cannot be read, and put nothing aside."""

    def patched(self: Lifecycle, state: PartitionState, part: Part) -> None:  # noqa: ARG001 - same
        state.finish_offset(part.record.offset)

    Lifecycle.on_unreadable = patched  # type: ignore[method-assign]


def _one_fetch_at_a_time() -> None:
    """Let whoever needs an adapter wait for those before it."""
    get = TaggedAdapters.get
    turn = asyncio.Lock()

    async def patched(self: TaggedAdapters, tenant: str, name: str) -> AdapterWeights:
        async with turn:
            return await get(self, tenant, name)

    TaggedAdapters.get = patched  # type: ignore[method-assign]


def _refused_by_an_ill_store() -> None:
    """Take a store that fails for an adapter that does."""
    get = TaggedAdapters.get

    async def patched(self: TaggedAdapters, tenant: str, name: str) -> AdapterWeights:
        try:
            return await get(self, tenant, name)
        except OSError as error:
            raise JobError(ErrorCode.ADAPTER_INVALID, str(error)) from error

    TaggedAdapters.get = patched  # type: ignore[method-assign]


def _constraint_begun_anew() -> None:
    """Hold an answer that was taken over to its constraint as if nothing of it were visible."""
    submit = TaggedEngine.submit

    def patched(self: TaggedEngine, request: GenerationRequest) -> None:
        submit(self, request)
        row = self._running.get(request.key)
        if request.constraint is not None and row is not None and row.answer is not None:
            row.answer.matcher = request.constraint.matcher()

    TaggedEngine.submit = patched  # type: ignore[method-assign]


BUGS = {
    "adapters_by_name": _adapters_by_name,
    "cancel_neighbours": _cancel_neighbours,
    "commit_early": _commit_early,
    "constraint_begun_anew": _constraint_begun_anew,
    "hasty_deadlines": _hasty_deadlines,
    "never_claim": _never_claim,
    "never_read_back": _never_read_back,
    "no_snappy": _no_snappy,
    "odd_ones_left_out": _odd_ones_left_out,
    "one_fetch_at_a_time": _one_fetch_at_a_time,
    "one_generation": _one_generation,
    "refused_by_an_ill_store": _refused_by_an_ill_store,
    "silent_reset": _silent_reset,
}
