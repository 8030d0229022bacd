"""Partitions that this worker holds: one state object for each, for one assignment. Pure.

Everything that belongs to an assignment hangs on its state: the generation it was won in, the
ledger, the jobs. When the partition goes, or comes back after a rebalance, the state is thrown
away whole, so a completion of an older assignment finds nothing that it could mark as finished.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aril.worker.queue.commit_text import (
    base_of,
    done_list_of,
    going_on_in,
    parting_in,
    text_of,
    under_way_of,
)
from aril.worker.queue.done_list import holds, runs_between, runs_of
from aril.worker.queue.going_on import NOTHING, GoingOn
from aril.worker.queue.identities import FinishedJobs, IdentityBound
from aril.worker.queue.ledger import Checkpoint, Ledger
from aril.worker.queue.parting import Parting
from aril.worker.queue.under_way import UnderWay
from aril.worker.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aril.worker.job import Asked, Entry, Partition
    from aril.worker.queue.commit_text import Saying


@dataclass(frozen=True, slots=True)
class Membership:
    """What this worker was in the group when it got its partitions.

    ``number`` is our own count of assignments. The group's coordinator checks who commits, not
    what they own: only this number tells work of an older assignment from that of the present
    one once the same member has its partition back.
    """

    number: int
    generation: int
    member_id: str

    def follows(self, earlier: Membership) -> bool:
        """Whether the same member missed no generation in between.

        Only then can nobody have owned the partition meanwhile: running jobs may go on.
        """
        return self.member_id == earlier.member_id and self.generation == earlier.generation + 1


class Identity(enum.Enum):
    """What the (tenant, id) of a new record means here."""

    NEW = enum.auto()
    TWIN = enum.auto()  # the same again, while the first is still at work
    REPEATED = enum.auto()  # the same again, after the first was finished
    UNANSWERED = enum.auto()  # the same again, and no end of an answer to the first was written
    CONFLICT = enum.auto()  # something else under a known id


class PartitionState:
    """One partition in one assignment.

    ``committed`` is what an earlier owner left, if known; ``earlier`` the state that this worker
    had of it before, if it had. ``bound`` is that of all partitions' finished jobs; without one it
    has its own.
    """

    def __init__(
        self,
        source: Partition,
        membership: Membership,
        end_offset: int,
        committed: Checkpoint | None = None,
        earlier: PartitionState | None = None,
        *,
        bound: IdentityBound | None = None,
        now: float = 0.0,
    ) -> None:
        self.source = source
        self.membership = membership
        # Nobody can have begun a job from here on: the end of the log, read after the assignment;
        # or what the same owner had not read before.
        self.fresh_from = end_offset
        self.finished_jobs = FinishedJobs(bound or IdentityBound())
        if earlier is not None and membership.follows(earlier.membership):
            self.fresh_from = min(end_offset, earlier.unread_from)
            self.finished_jobs = earlier.finished_jobs
        self._not_begun: tuple[range, ...] = ()  # nor these, below that
        said = parting_in(committed)
        if said is not None and said.holds_in(membership.generation):
            self.fresh_from = min(self.fresh_from, said.unread)
            self._not_begun = said.waiting
        self._under_way = UnderWay(under_way_of(committed), end_offset)
        self._elsewhere = going_on_in(committed)
        self._elsewhere_until = now + self._elsewhere.ms / 1_000
        self._going_on = NOTHING  # said on parting
        self.committed = committed
        self.ledger = None if committed is None else _ledger_of(committed, end_offset)
        self.revoked = False
        self._parted_in = membership.generation
        # Added to the generation in every epoch: not 0 once generations began again below an epoch
        # that is in a reply log. It travels in the commit, so epochs rise with the assignments.
        self.base = 0 if committed is None else base_of(committed.metadata)
        self._begun = False
        self._entries: dict[tuple[str, str], Entry] = {}

    @property
    def entries(self) -> list[Entry]:
        """The unfinished jobs."""
        return list(self._entries.values())

    @property
    def unfinished(self) -> int:
        """How many jobs are unfinished."""
        return len(self._entries)

    @property
    def position(self) -> int | None:
        """The first offset that is not finished; None while nothing is known."""
        return None if self.ledger is None else self.ledger.position

    def is_fresh(self, offset: int) -> bool:
        """Tell whether nobody can have begun the job at an offset."""
        if offset >= self.fresh_from:
            return True
        return holds(self._not_begun, offset)

    def was_under_way(self, offset: int) -> bool:
        """Tell whether an earlier owner has begun the job at an offset, as far as it has said."""
        return self._under_way.was_before(offset)

    def elsewhere_until(self, offset: int) -> float | None:
        """Tell until when a worker that has left may still write a job's answer."""
        return self._elsewhere_until if holds(self._elsewhere.runs, offset) else None

    @property
    def unread_from(self) -> int:
        """The first offset from which on all is fresh and was not read here either."""
        return (
            self.fresh_from
            if self.ledger is None
            else max(self.fresh_from, self.ledger.next_offset)
        )

    @property
    def crowded(self) -> bool:
        """Whether no more should be read until the oldest jobs are done."""
        return self.ledger is not None and self.ledger.crowded

    @property
    def oldest_waiting(self) -> Entry | None:
        """The job of the lowest offset that waits for its turn."""
        return next((each for each in self._entries.values() if each.stage is Stage.WAITING), None)

    def read(self, offset: int) -> bool:
        """Note a record's arrival; False if it was seen in this assignment, or is finished."""
        if self.ledger is None or (not self._begun and offset < self.ledger.next_offset):
            # Nothing was committed, or the log was set back behind it and is read from its start:
            # what was said with the commit is of other records.
            self.ledger = Ledger(offset)
            self._under_way.void()
            self._elsewhere = NOTHING
        self._begun = True
        return self.ledger.read(offset)

    def identify(self, tenant: str, job_id: str, digest: bytes) -> tuple[Identity, Asked | None]:
        """Tell whether a job is new here, and what the first one asked: its offset wins."""
        entry = self._entries.get((tenant, job_id))
        if entry is not None:
            same = entry.digest == digest
            return (Identity.TWIN if same else Identity.CONFLICT), entry.asked
        known = self.finished_jobs.find(tenant, job_id)
        if known is None:
            return Identity.NEW, None
        if known.digest != digest:
            return Identity.CONFLICT, known
        return (Identity.REPEATED if known.unanswered is None else Identity.UNANSWERED), known

    def find(self, tenant: str, job_id: str) -> Entry | None:
        """Return the unfinished job of that identity."""
        return self._entries.get((tenant, job_id))

    def add(self, entry: Entry) -> None:
        """Take on a job that is new here."""
        self._entries[entry.tenant, entry.job_id] = entry
        if entry.under_way or self.was_under_way(entry.record.offset):
            self.begun(entry)

    def begun(self, entry: Entry) -> None:
        """Note that a job is under way until it is finished: whoever is next is told."""
        self._under_way.add(entry.record.offset)

    def finish(self, entry: Entry) -> None:
        """Mark a job, and every offset that waited for it, as finished."""
        del self._entries[entry.tenant, entry.job_id]
        self._under_way.discard(entry.record.offset)
        self.finished_jobs.add(entry.tenant, entry.job_id, entry.asked)
        self.finish_offset(entry.record.offset)
        for offset in entry.settled_with:
            self.finish_offset(offset)

    def finish_offset(self, offset: int) -> None:
        """Mark one offset that is no job, or no new one, as finished."""
        assert self.ledger is not None, "an offset is read before it is finished"  # noqa: S101 - ours
        self.ledger.finish(offset)

    @property
    def epoch_generation(self) -> int:
        """The first part of the epochs that are written in this assignment."""
        return self.base + self.membership.generation

    def checkpoint(self, base: int | None = None) -> Checkpoint | None:
        """Return all there is to commit, with a raised base if one is given."""
        if self.ledger is None:
            return None
        sayings: list[Saying] = [self._under_way]
        if self.revoked:  # the last one: what the next owner may know
            sayings += [self._going_on, self._parting()]
        said = bool(self._under_way) or self.revoked
        text = text_of(self.ledger, base or self.base, sayings, always=said)
        return Checkpoint(self.ledger.position, text)

    def part(self, generation: int, *, now: float = 0.0) -> None:
        """End the assignment: in `generation`, as far as is known, it was still ours.

        That is the one of the assignment, but for members of KIP-848: their epoch rises meanwhile.
        What goes on elsewhere is passed on, for as long as is left of its time.
        """
        self.revoked = True
        self._parted_in = max(self._parted_in, generation)
        left_ms = int(1_000 * (self._elsewhere_until - now))
        if self._elsewhere.runs and left_ms > 0 and not self._going_on.runs:
            self._going_on = GoingOn(left_ms, self._elsewhere.runs)

    def goes_on(self, offsets: Iterable[int], seconds: float) -> None:
        """Say, with the last commit, that these jobs go on here, for so long at most."""
        self._going_on = GoingOn(int(1_000 * seconds), runs_of(sorted(offsets)))

    def _parting(self) -> Parting:
        """Say what nobody has begun: nothing of that is begun here any more."""
        waiting = (entry.record.offset for entry in self._entries.values() if not entry.touched)
        return Parting(self._parted_in, self.unread_from, runs_of(sorted(waiting)))

    def to_commit(self, *, telling: bool = True) -> Checkpoint | None:
        """Return what to commit, or None when the last commit said as much.

        What is under way goes along, and is a reason to commit only if `telling`.
        """
        if self.ledger is None:
            return None
        checkpoint = self.checkpoint()
        due = telling or checkpoint != self.committed
        if due and self._under_way.tell(self.ledger.next_offset):
            checkpoint = self.checkpoint()
        return None if checkpoint == self.committed else checkpoint


def _ledger_of(committed: Checkpoint, end_offset: int) -> Ledger:
    """Go on where an earlier owner stopped.

    Offsets past the log's end cannot have been finished: the log was cut since, and will give
    them to other jobs.
    """
    done = done_list_of(committed)
    return Ledger(
        committed.position,
        runs_between(done, committed.position, end_offset),
    )
