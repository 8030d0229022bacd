"""How a job that another owner may have begun is taken over. Pure: no I/O, no clock.

    claim      append a claim under our epoch; it keeps what is visible
    read back  fold the reply log from the job's start up to that claim, by the reader rule
    verdict    ANSWERED   a terminal is visible: only the offset is still to be marked
               OURS       our epoch is the current one: go on behind the visible tokens
               CONTESTED  somebody stands above us: prove that the partition is ours, then claim
                          above them; a refused proof means that we are the zombie

Epochs are (base + group generation, attempt). The base is 0 until a group was deleted and its
generations began again below an epoch that is in the log; raising the attempt alone would then
leave two owners in one generation. A raised base is committed with the proof, so that every
later owner of the partition starts from it and epochs go on rising with the assignments
(tests/worker/takeover/test_explorer.py shows what happens otherwise).

A **strike** is a writer that ended without a release, without a new visible token, and not at the
hands of its own process. The log counts them, since a crash takes every counter in memory along.
Only those since the last visible token count: a job that gets further is not what kills.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aril.schemas import (
    ClaimRecord,
    Epoch,
    ErrorCode,
    JobError,
    ReleaseRecord,
    ReplyRecord,
    ResetEvent,
    TokensEvent,
    TokensRecord,
    VisibleStream,
)
from aril.schemas.limits import MAX_EARLIER_BASES
from aril.schemas.reader import BEFORE_ALL
from aril.worker.stages import Event

if TYPE_CHECKING:
    from collections.abc import Sequence

# After this many strikes a job runs with nobody beside it: its neighbours may not be to blame.
STRIKES_TO_RUN_ALONE = 2
# After this many strikes alone it is convicted. A kill from outside can hit a job alone, too.
STRIKES_ALONE_TO_CONVICT = 3


class Verdict(enum.Enum):
    """What the log says of a claim."""

    ANSWERED = enum.auto()
    OURS = enum.auto()
    CONTESTED = enum.auto()


@dataclass(slots=True)
class _Writer:
    name: str
    alone: bool
    base_digest: str | None  # of its backbone, where it tells
    brought: bool = False  # a token or a terminal of it is visible
    released: bool = False


class History:
    """What a job's log shows: the visible stream, and how each of its writers ended."""

    __slots__ = ("_writer", "bases", "earlier", "stream", "strikes", "strikes_alone")

    def __init__(self) -> None:
        self.stream = VisibleStream()
        self.strikes = 0
        self.strikes_alone = 0  # of these, by writers that had nothing beside the job
        self.earlier: tuple[Epoch, str] | None = None  # who wrote before the one who writes now
        self.bases: list[str] = []  # digests of the backbones that brought what is visible
        self._writer: _Writer | None = None

    def feed(self, record: ReplyRecord) -> None:
        """Take the log's next record of the job."""
        stream = self.stream
        before = (stream.epoch, stream.writer)
        events = stream.feed(record)
        if stream.writer is not None and (stream.epoch, stream.writer) != before:
            alone = isinstance(record, ClaimRecord) and record.alone
            base = record.base_digest if isinstance(record, ClaimRecord | TokensRecord) else None
            self._note_earlier(before, (stream.epoch, stream.writer))
            self._begin(_Writer(stream.writer, alone, base))
        if self._writer is None:
            return
        self._note_base(self._writer.base_digest, events)
        if stream.finished or any(isinstance(event, TokensEvent) for event in events):
            self._writer.brought = True
            self.strikes = self.strikes_alone = 0  # the job is not what kills: it got further
        if isinstance(record, ReleaseRecord) and (record.epoch, record.worker) == before:
            self._writer.released = True

    def _note_earlier(self, before: tuple[Epoch, str | None], now: tuple[Epoch, str]) -> None:
        """Remember the writer before this one; the same in its next attempt is no other."""
        (epoch, writer), (own_epoch, own) = before, now
        if writer is not None and (epoch.generation, writer) != (own_epoch.generation, own):
            self.earlier = (epoch, writer)

    def _note_base(self, base: str | None, events: Sequence[object]) -> None:
        if any(isinstance(event, ResetEvent) for event in events):
            self.bases.clear()
        brought = any(isinstance(event, TokensEvent) for event in events)
        if brought and base is not None and base not in self.bases:
            self.bases = [*self.bases, base][-MAX_EARLIER_BASES:]

    def _begin(self, writer: _Writer) -> None:
        last, self._writer = self._writer, writer
        # The same process goes on after a failed append: it did not crash.
        if last is None or last.brought or last.released or last.name == writer.name:
            return
        self.strikes += 1
        self.strikes_alone += last.alone


class TakeOver:
    """One job's way into our hands; it may take several claims."""

    __slots__ = ("_generation", "_highest", "_job", "_worker", "epoch", "history")

    def __init__(self, *, job: str, worker: str, generation: int, epoch: Epoch) -> None:
        """Begin under `epoch`; `generation` is the group's, captured at assignment."""
        self._job = job
        self._worker = worker
        self._generation = generation
        self.epoch = epoch
        self.history = History()
        self._highest = BEFORE_ALL  # epoch of anybody else's record, whether it counts or not

    def claim(self, *, alone: bool = False) -> ClaimRecord:
        """Return the claim to append now. What was read before it stays: a log only grows."""
        return ClaimRecord(job=self._job, epoch=self.epoch, worker=self._worker, alone=alone)

    def read(self, record: ReplyRecord) -> None:
        """Take the log's next record of the job; the own claim is the last before the verdict."""
        self.history.feed(record)
        if record.worker != self._worker:  # what we wrote ourselves is below our epoch by now
            self._highest = max(self._highest, record.epoch)

    def forget(self) -> None:
        """Be ready to read the log from the job's start again."""
        self.history = History()

    def verdict(self, *, prefix_lost: bool = False) -> Verdict:
        """Judge once the own claim was read.

        Where the log's beginning is gone the fold may be blind to an epoch that live readers
        know, so whatever stands at or above ours contests the claim.
        """
        stream = self.history.stream
        if prefix_lost:
            return Verdict.CONTESTED if self._highest >= self.epoch else Verdict.OURS
        if stream.finished:
            return Verdict.ANSWERED
        if (stream.epoch, stream.writer) == (self.epoch, self._worker):
            return Verdict.OURS
        return Verdict.CONTESTED

    def append_failed(self) -> None:
        """Go on after a claim that failed or may have: it can still land, under its own epoch."""
        self.epoch = next_attempt(self.epoch)

    def base_above(self) -> int:
        """Return a base under which every generation is above all that was read."""
        return self._highest.generation + 1

    def proved(self, base: int) -> None:
        """Go on above what was read: a commit of `base` showed that the partition is ours."""
        self.epoch = Epoch(base + self._generation, 1)

    def prefix_unknown(self) -> None:
        """Give up on the visible prefix: begin at index 0 without a claim, an explicit reset."""
        self.history = History()
        self.epoch = next_attempt(self.epoch)


def next_attempt(epoch: Epoch) -> Epoch:
    """Return the epoch under which a writer goes on after an append whose fate is unknown."""
    return Epoch(epoch.generation, epoch.attempt + 1)


def sentence(strikes: int, strikes_alone: int, *, alone: bool) -> Event:
    """Tell what its strikes mean for a job that is ours: OURS, SUSPECTED or CONVICTED."""
    if strikes_alone >= STRIKES_ALONE_TO_CONVICT:
        return Event.CONVICTED
    if strikes >= STRIKES_TO_RUN_ALONE and not alone:
        return Event.SUSPECTED
    return Event.OURS


def crash_loop(strikes: int) -> JobError:
    """Make the error for a job that keeps killing its worker with nothing beside it."""
    return JobError(
        ErrorCode.CRASH_LOOP,
        f"{strikes} workers ended while they ran nothing but this job",
        limit=STRIKES_ALONE_TO_CONVICT,
        given=strikes,
    )
