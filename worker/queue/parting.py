"""What an owner says of a partition as it parts with it: which jobs nobody has begun. Pure.

It goes with the last commit of an assignment, between the base of epochs and the done list:

    generation , first offset that was not read , checksum , runs of offsets read and not begun

The coordinator takes that commit from the partition's owner alone, so whoever has the partition in
the very next generation may believe it: there was nobody else in between, and who wrote it begins
none of these any more. In any later generation it says nothing. The runs are encoded as the done
list is; what does not fit is left out, and is claimed by the next owner like any other job.
The checksum is over all of it and the position beside it: tools that copy a group's offsets to
another cluster translate the position, and there the rest would speak of other jobs.
"""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

from aril.worker.queue.done_list import MAX_OFFSET, decode_from, encode_from

SEPARATOR: Final = ","  # no letter of base64
DIGITS: Final = len(str(MAX_OFFSET))
CHECKSUM_DIGITS: Final = 8
_PARTS: Final = 4


class Parting(NamedTuple):
    """Nobody has begun a job at `unread` or above, nor one in `waiting`."""

    generation: int
    unread: int
    waiting: tuple[range, ...] = ()

    def holds_in(self, generation: int) -> bool:
        """Whether it may be believed by who has the partition in that generation."""
        return generation == self.generation + 1

    def encode(self, position: int, limit: int) -> str:
        """Return it as text of at most so many characters; "" where not even a part fits."""
        head = f"{self.generation}{SEPARATOR}{self.unread}{SEPARATOR}"
        room = limit - len(head) - CHECKSUM_DIGITS - len(SEPARATOR)
        if room < 0:
            return ""
        runs = encode_from(position, self.waiting, room)
        return f"{head}{_checksum(position, head, runs)}{SEPARATOR}{runs}"


def parting_of(position: int, text: str) -> Parting | None:
    """Read what was committed with a position; None where that is nothing, or cannot be read."""
    parts = text.split(SEPARATOR)
    if len(parts) != _PARTS:
        return None
    generation, unread, checksum, runs = parts
    if not (_is_number(generation) and _is_number(unread)):
        return None
    if checksum != _checksum(position, f"{generation}{SEPARATOR}{unread}{SEPARATOR}", runs):
        return None
    return Parting(int(generation), int(unread), decode_from(position, runs))


def _checksum(position: int, head: str, runs: str) -> str:
    return f"{zlib.crc32(f'{position}{SEPARATOR}{head}{runs}'.encode()):0{CHECKSUM_DIGITS}x}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= DIGITS
