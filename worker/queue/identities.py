"""Identities of finished jobs: what a job that is sent again is known by. Pure.

Each partition remembers its own, the newest. There is one bound over all: beyond it the partitions
that remember most remember less, down to an even part each. So a busy partition has what quiet ones
leave, and takes nothing that is theirs.
"""

from __future__ import annotations

import hashlib
from itertools import islice
from struct import Struct
from typing import TYPE_CHECKING, Final

from aril.schemas import Epoch
from aril.worker.job import Asked

if TYPE_CHECKING:
    from collections.abc import Iterable

OF_A_PARTITION: Final = 10_000
OF_ALL: Final = 200_000  # about 160 bytes each: 32 MB
SLACK_PART: Final = 16  # a partition may be over its level by one part of so many
STEP_PART: Final = 16  # and the level falls by one part of so many

# Where the first one's answer begins and its partition, NONE for what there is not; whether its
# last epoch follows; then the digest of what it asked.
_PLACE: Final = Struct("<qi?")
_EPOCH: Final = Struct("<qq")
_NONE: Final = -1


class FinishedJobs:
    """Of one partition."""

    def __init__(self, bound: IdentityBound) -> None:
        """Begin with none; `bound` has to hold it."""
        self._bound = bound
        self._asked: dict[bytes, bytes] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._asked)

    def find(self, tenant: str, job_id: str) -> Asked | None:
        """Return what the finished job with an identity asked, if that is remembered."""
        packed = self._asked.get(_key(tenant, job_id))
        return None if packed is None else _unpack(packed)

    def add(self, tenant: str, job_id: str, asked: Asked) -> None:
        """Remember a job as the newest; it may have been there, unanswered."""
        key = _key(tenant, job_id)
        known = self._asked.pop(key, None)
        self._asked[key] = _pack(asked)
        if known is None:
            self._bound.grew(self)

    def forget(self, most: int) -> int:
        """Remember no more than the newest so many; return how many were forgotten."""
        over = len(self._asked) - most
        if over <= 0:
            return 0
        # A dict without its first items keeps their room, and looks through it for the next one.
        self._asked = dict(islice(self._asked.items(), over, None))
        return over


class IdentityBound:
    """What all partitions of a worker remember together."""

    def __init__(self, *, of_all: int = OF_ALL, of_a_partition: int = OF_A_PARTITION) -> None:
        self._of_all = of_all
        self._of_a_partition = of_a_partition
        self._level = of_a_partition  # no partition remembers more, but for the slack
        self._held: tuple[FinishedJobs, ...] = ()
        self._total = 0

    def hold(self, held: Iterable[FinishedJobs]) -> None:
        """Bound these and no others: those of the present assignment."""
        self._held = tuple(held)
        self._total = sum(map(len, self._held))
        self._level = self._of_a_partition
        self._keep()

    def grew(self, jobs: FinishedJobs) -> None:
        """Note that a partition remembers one more."""
        self._total += 1
        if len(jobs) > self._level + self._level // SLACK_PART:
            self._total -= jobs.forget(self._level)
        self._keep()

    def _keep(self) -> None:
        """Lower the level until all is within the bound. It rises with the next assignment.

        Not before: what a partition remembers grows only, so there is never more room.
        """
        if self._total <= self._of_all or not self._held:
            return
        least = max(1, self._of_all // len(self._held))
        while self._total > self._of_all and self._level > least:
            self._level = max(least, self._level - self._level // STEP_PART - 1)
            self._total -= sum(each.forget(self._level) for each in self._held)


def _key(tenant: str, job_id: str) -> bytes:
    return hashlib.blake2b(f"{tenant}/{job_id}".encode(), digest_size=16).digest()


def _pack(asked: Asked) -> bytes:
    place = _PLACE.pack(
        _NONE if asked.reply_from is None else asked.reply_from,
        _NONE if asked.reply_partition is None else asked.reply_partition,
        asked.unanswered is not None,
    )
    epoch = b"" if asked.unanswered is None else _EPOCH.pack(*asked.unanswered)
    return place + epoch + asked.digest


def _unpack(packed: bytes) -> Asked:
    reply_from, partition, untold = _PLACE.unpack_from(packed)
    at, unanswered = _PLACE.size, None
    if untold:
        unanswered = Epoch(*_EPOCH.unpack_from(packed, at))
        at += _EPOCH.size
    return Asked(
        packed[at:],
        None if reply_from == _NONE else reply_from,
        None if partition == _NONE else partition,
        unanswered,
    )
