"""Partitions that this worker holds: one state object for each, for one assignment. Pure.

Everything that belongs to an assignment hangs on its state: the generation it was won in, the
ledger, the jobs. When the partition goes, or comes back after a rebalance, the state is thrown
away whole, so a completion of an older assignment finds nothing that it could mark as finished.
"""

from __future__ import annotations

import enum
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.done_list import decode
from worker.ledger import Checkpoint, Ledger

if TYPE_CHECKING:
    from worker.jobs import Entry, Partition

# Finished identities remembered a partition, to catch a job that was sent twice: about 2.5 MB.
REMEMBERED = 10_000


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
    TWIN = enum.auto()  # the same bytes, while the first is still at work
    REPEATED = enum.auto()  # the same bytes, after the first was finished
    CONFLICT = enum.auto()  # other bytes under a known id


class PartitionState:
    """One partition in one assignment. ``committed`` is what an earlier owner left, if known."""

    def __init__(
        self,
        source: Partition,
        membership: Membership,
        end_offset: int,
        committed: Checkpoint | None = None,
    ) -> None:
        self.source = source
        self.membership = membership
        self.end_offset = end_offset  # as read after the assignment: jobs from here on are fresh
        self.committed = committed
        self.ledger = None if committed is None else _ledger_of(committed, end_offset)
        self.revoked = False
        self._begun = False
        self._entries: dict[tuple[str, str], Entry] = {}
        self._finished: OrderedDict[bytes, bytes] = OrderedDict()

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

    @property
    def crowded(self) -> bool:
        """Whether no more should be read until the oldest jobs are done."""
        return self.ledger is not None and self.ledger.crowded

    def read(self, offset: int) -> bool:
        """Note a record's arrival; False if it was seen in this assignment, or is finished."""
        if self.ledger is None or (not self._begun and offset < self.ledger.next_offset):
            # Nothing was committed, or the log was set back behind it and is read from its start:
            # the done list spoke of other records.
            self.ledger = Ledger(offset)
        self._begun = True
        return self.ledger.read(offset)

    def identify(self, tenant: str, job_id: str, digest: bytes) -> tuple[Identity, Entry | None]:
        """Tell whether a job is new here; the first offset with an identity wins."""
        entry = self._entries.get((tenant, job_id))
        if entry is not None:
            same = entry.digest == digest
            return (Identity.TWIN if same else Identity.CONFLICT), entry
        known = self._finished.get(_identity_key(tenant, job_id))
        if known is None:
            return Identity.NEW, None
        return (Identity.REPEATED if known == digest else Identity.CONFLICT), None

    def find(self, tenant: str, job_id: str) -> Entry | None:
        """Return the unfinished job of that identity."""
        return self._entries.get((tenant, job_id))

    def add(self, entry: Entry) -> None:
        """Take on a job that is new here."""
        self._entries[entry.tenant, entry.job_id] = entry

    def finish(self, entry: Entry) -> None:
        """Mark a job, and every offset that waited for it, as finished."""
        del self._entries[entry.tenant, entry.job_id]
        self._finished[_identity_key(entry.tenant, entry.job_id)] = entry.digest
        if len(self._finished) > REMEMBERED:
            self._finished.popitem(last=False)
        self.finish_offset(entry.record.offset)
        for offset in entry.settled_with:
            self.finish_offset(offset)

    def finish_offset(self, offset: int) -> None:
        """Mark one offset that is no job, or no new one, as finished."""
        assert self.ledger is not None, "an offset is read before it is finished"  # noqa: S101 - ours
        self.ledger.finish(offset)

    def to_commit(self) -> Checkpoint | None:
        """Return what to commit, or None when the last commit said as much."""
        if self.ledger is None or self.ledger.checkpoint() == self.committed:
            return None
        return self.ledger.checkpoint()


def _ledger_of(committed: Checkpoint, end_offset: int) -> Ledger:
    """Go on where an earlier owner stopped.

    Offsets past the log's end cannot have been finished: the log was cut since, and will give
    them to other jobs.
    """
    done = decode(committed.position, committed.metadata)
    return Ledger(
        committed.position,
        (range(run.start, min(run.stop, end_offset)) for run in done if run.start < end_offset),
    )


def _identity_key(tenant: str, job_id: str) -> bytes:
    return hashlib.blake2b(f"{tenant}/{job_id}".encode(), digest_size=16).digest()
