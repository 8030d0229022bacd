"""A worker without the exactly-once protocol, for `benchmarks.protocol_cost` to compare with.

    python -m benchmarks.plain_worker SECONDS    # of a step; settings from `ARIL_*`

At least once and no more: a job counts as finished when its terminal is acknowledged, the finished
prefix of each partition is committed at the same interval with the same request, and whatever is
unfinished when a worker dies is answered again from its first token. Everything else is the worker
as it is: intake, fairness, window, engine, one batch of records a stream under way, acknowledged by
all replicas. All of it is put around the worker's classes here; the worker has no such switch.

What is off:

* **records**: a tokens record has no epoch, worker or index. (A terminal keeps them, once a job:
  the check of its form is no part of the protocol and needs them.)
* **ledger**: no done list. A set of finished offsets, no metadata in the commit, and a commit only
  where the finished prefix grew; a full list never holds reading up.
* **take-over**: no decision whether a job is fresh, no claims, no reading back, no read-ahead, no
  look-up of jobs that go on across a rebalance.
* **identity**: no digest of a job's bytes, no memory of finished identities; a job sent twice runs
  twice. The seed is drawn, not derived from the record.
"""

from __future__ import annotations

import random
import runpy
from typing import TYPE_CHECKING

import msgpack

import aril.worker.batching.dispatch
import aril.worker.intake.admission
import aril.worker.queue.assignment
import aril.worker.replies.stream
from aril.schemas import TokensRecord, encode_reply, limits
from aril.worker.queue.assignment import Identity, PartitionState
from aril.worker.queue.held import HeldPartitions
from aril.worker.queue.kept_jobs import Taken
from aril.worker.queue.ledger import Checkpoint
from aril.worker.stages import Event
from aril.worker.takeover.claims import Claims

if TYPE_CHECKING:
    from aril.schemas import Job, ReplyRecord
    from aril.worker.job import Asked, Entry, Record

SEED_BITS = 63
WHOLE = "tests.support.paced_worker"  # the same worker with the protocol


class PlainLedger:
    """The finished prefix of a partition, and nothing that outlives the process beyond it."""

    crowded = False

    def __init__(self, position: int) -> None:
        self.position = position
        self.next_offset = position
        self._finished: set[int] = set()

    def checkpoint(self) -> Checkpoint:
        """Return what there is to commit."""
        return Checkpoint(self.position, "")

    def read(self, offset: int) -> bool:
        """Note that an offset was read; False if it was read before."""
        if offset < self.next_offset:
            return False
        self._finished.update(range(self.next_offset, offset))
        self.next_offset = offset + 1
        self._advance()
        return True

    def finish(self, offset: int) -> None:
        """Note that an offset needs no more work."""
        self._finished.add(offset)
        self._advance()

    def _advance(self) -> None:
        while self.position in self._finished:
            self._finished.remove(self.position)
            self.position += 1


def switch_off() -> None:
    """Take the protocol out of every worker of this process."""
    _plain_records()
    _plain_ledger()
    _no_take_over()
    _no_identity()


def _plain_records() -> None:
    def encode(record: ReplyRecord) -> bytes:
        if not isinstance(record, TokensRecord):
            return encode_reply(record)
        fields = {
            "v": limits.VERSION,
            "kind": "tokens",
            "job": record.job,
            "ids": record.ids,
            "text": record.text,
        }
        if len(record.text) > limits.MAX_REPLY_TEXT_CHARS:
            raise ValueError("too much text")
        data: bytes = msgpack.packb(fields)
        if len(data) > limits.MAX_REPLY_BYTES:
            raise ValueError("too large a record")
        return data

    aril.worker.replies.stream.encode_reply = encode  # type: ignore[attr-defined]


def _plain_ledger() -> None:
    def ledger_of(committed: Checkpoint, end_offset: int) -> PlainLedger:  # noqa: ARG001 - the original's
        return PlainLedger(committed.position)

    def begun(self: PartitionState, entry: Entry) -> None:
        pass

    aril.worker.queue.assignment.Ledger = PlainLedger  # type: ignore[attr-defined,assignment]
    PartitionState.begun = begun  # type: ignore[method-assign]
    aril.worker.queue.assignment._ledger_of = ledger_of  # type: ignore[assignment]  # noqa: SLF001 - our own


def _no_take_over() -> None:
    def take_over(self: Claims, entry: Entry) -> None:
        entry.owned = True
        self._happened(entry, Event.OURS)

    def nothing(self: Claims, entry: Entry) -> None:
        pass

    def redelivered(self: HeldPartitions, state: PartitionState, record: Record) -> Taken:  # noqa: ARG001 - the original's
        return Taken(None)

    Claims.take_over = take_over  # type: ignore[method-assign]
    Claims.expect = nothing  # type: ignore[method-assign]
    Claims.forget = nothing  # type: ignore[method-assign]
    HeldPartitions.redelivered = redelivered  # type: ignore[method-assign]


def _no_identity() -> None:
    def digest_of(value: bytes | None, job: Job | None = None) -> bytes:  # noqa: ARG001 - the original's
        return b""

    def seed_of(entry: Entry) -> int:
        given = entry.job.sampling.seed if entry.job is not None else None
        return random.getrandbits(SEED_BITS) if given is None else given

    def identify(
        self: PartitionState,  # noqa: ARG001 - the original's
        tenant: str,  # noqa: ARG001 - same
        job_id: str,  # noqa: ARG001 - same
        digest: bytes,  # noqa: ARG001 - same
    ) -> tuple[Identity, Asked | None]:
        return Identity.NEW, None

    def finish(self: PartitionState, entry: Entry) -> None:
        del self._entries[entry.tenant, entry.job_id]
        self.finish_offset(entry.record.offset)
        for offset in entry.settled_with:
            self.finish_offset(offset)

    aril.worker.intake.admission.digest_of = digest_of  # type: ignore[attr-defined]
    aril.worker.batching.dispatch.seed_of = seed_of  # type: ignore[attr-defined]
    PartitionState.identify = identify  # type: ignore[method-assign]
    PartitionState.finish = finish  # type: ignore[method-assign]


if __name__ == "__main__":
    switch_off()
    runpy.run_module(WHOLE, run_name="__main__")
