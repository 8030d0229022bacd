"""The done-beyond list: finished offsets beyond the commit position, as text for commit metadata.

A committed offset can only say "everything before this is finished". What was finished out of order
beyond it would be delivered again after a restart; this text, committed with the position, says
which offsets those are. The text is base64 of

    version (1 byte) · CRC32 of position and body (4 bytes) · body

where the body alternates LEB128 varints, each at least 1: how many offsets are open, how many
are done, how many are open, … counted from the position. The position is in the checksum, though
not in the text: tools that copy a group's offsets to another cluster translate the offset and copy
the text as it is, and there the list would name other people's jobs.

Duplicates are harmless, loss is not: whatever cannot be read is the empty list.
"""

from __future__ import annotations

import base64
import struct
import zlib
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

METADATA_BYTES: Final = 4096  # Kafka's offset.metadata.max.bytes, unless a broker sets it lower
FULL_SHARE: Final = 0.75  # of METADATA_BYTES: room for what is still at work when reading stops
HINT_BYTES: Final = 1_024  # of what is said beside it, each: some hundred jobs

VERSION: Final = 1
MAX_OFFSET: Final = 2**63 - 1
_HEAD: Final = struct.Struct(">BI")
_LAST_SHIFT: Final = 56  # nine bytes of seven bits hold any offset


def encode(position: int, done: Iterable[range], limit: int = METADATA_BYTES) -> str:
    """Encode runs of finished offsets: those that fit into ``limit`` characters, lowest first.

    The runs ascend, do not touch, and leave at least the position itself open: ValueError if not.
    """
    room = limit // 4 * 3 - _HEAD.size
    body = bytearray()
    at = position
    for run in done:
        if run.start <= at or run.stop <= run.start:
            raise ValueError(f"not a run beyond {at}: {run}")
        pair = _varint(run.start - at) + _varint(run.stop - run.start)
        if len(body) + len(pair) > room:
            break
        body += pair
        at = run.stop
    if not body:
        return ""
    head = _HEAD.pack(VERSION, _checksum(position, body))
    return base64.b64encode(head + body).decode()


def decode(position: int, text: str) -> tuple[range, ...]:
    """Decode what was committed with a position. Never raises: what is unreadable is empty.

    Bounded: runs stay ranges however long they are, and 4096 characters hold at most 1,533.
    """
    if len(text) > METADATA_BYTES:
        return ()
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return ()
    if len(raw) <= _HEAD.size:
        return ()
    version, checksum = _HEAD.unpack_from(raw)
    body = raw[_HEAD.size :]
    if version != VERSION or checksum != _checksum(position, body):
        return ()
    return _runs(position, body)


def encode_from(position: int, runs: Iterable[range], limit: int = METADATA_BYTES) -> str:
    """Encode runs of offsets of which one may begin at the position itself."""
    return encode(position, (range(run.start + 1, run.stop + 1) for run in runs), limit)


def decode_from(position: int, text: str) -> tuple[range, ...]:
    """Decode what `encode_from` made; as `decode` does."""
    return tuple(range(run.start - 1, run.stop - 1) for run in decode(position, text))


def runs_of(offsets: Iterable[int]) -> tuple[range, ...]:
    """Return ascending offsets as runs."""
    return joined(range(offset, offset + 1) for offset in offsets)


def joined(runs: Iterable[range]) -> tuple[range, ...]:
    """Return ascending runs with those that touch as one."""
    found: list[range] = []
    for run in runs:
        if found and run.start <= found[-1].stop:
            found[-1] = range(found[-1].start, run.stop)
        else:
            found.append(run)
    return tuple(found)


def runs_between(runs: Iterable[range], start: int, stop: int = MAX_OFFSET) -> tuple[range, ...]:
    """Return what of ascending runs is in [start, stop)."""
    cut = (range(max(run.start, start), min(run.stop, stop)) for run in runs)
    return tuple(run for run in cut if run)


def holds(runs: Sequence[range], offset: int) -> bool:
    """Tell whether an offset is in one of ascending runs."""
    at = bisect_right(runs, offset, key=lambda run: run.start)
    return at > 0 and offset in runs[at - 1]


def open_below(stop: int, position: int, done: Iterable[range]) -> int:
    """Count the offsets from the position to ``stop`` that are in no run."""
    finished = sum(max(0, min(run.stop, stop) - run.start) for run in done)
    return max(0, stop - position) - finished


def text_size(body_bytes: int) -> int:
    """Return how long the text of a body is."""
    return (_HEAD.size + body_bytes + 2) // 3 * 4 if body_bytes else 0


def varint_size(value: int) -> int:
    """Return how many bytes of the body a count of 1 or more takes."""
    return (value.bit_length() + 6) // 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _checksum(position: int, body: bytes | bytearray) -> int:
    return zlib.crc32(body, zlib.crc32(position.to_bytes(8, "big")))


def _runs(position: int, body: bytes) -> tuple[range, ...]:
    edges: list[int] = []
    at, value, shift = position, 0, 0
    for byte in body:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > _LAST_SHIFT:
                return ()
            continue
        at += value
        if not value or at > MAX_OFFSET:
            return ()
        edges.append(at)
        value = shift = 0
    if shift or len(edges) % 2:
        return ()
    return tuple(map(range, edges[::2], edges[1::2]))
