"""A set of 64-bit digests in 11 to 23 bytes each, for as many lines as a file has."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Final

BYTES: Final = 8
FIRST_SLOTS: Final = 1 << 10
FULLEST: Final = 0.7
EMPTY: Final = 0


def digest_of(data: bytes) -> int:
    """Return 64 bits that stand for `data`; never the mark of an empty slot."""
    return int.from_bytes(blake2b(data, digest_size=BYTES).digest(), "big") or 1


class Digests:
    """Digests that were seen. Among a million of them two are one by chance in 1 of 37,000,000."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(BYTES * FIRST_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """Memory that its members take."""
        return BYTES * len(self._slots)

    def __contains__(self, digest: int) -> bool:
        return self._slots[self._place(digest)] == digest

    def add(self, digest: int) -> bool:
        """Put one in; return whether it was not there."""
        place = self._place(digest)
        if self._slots[place] == digest:
            return False
        self._slots[place] = digest
        self._count += 1
        if self._count > FULLEST * len(self._slots):
            self._grow()
        return True

    def _place(self, digest: int) -> int:
        """Return the slot that holds a digest, or the one to put it into."""
        slots = self._slots
        mask = len(slots) - 1
        place = digest & mask
        while slots[place] not in (EMPTY, digest):
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(BYTES * 2 * len(old)))
        for digest in old:
            if digest != EMPTY:
                self._slots[self._place(digest)] = digest
