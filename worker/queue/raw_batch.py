"""Reading a batch of records by hand, as far as it can be read. Pure.

For batches that aiokafka gives up on whole. Each record says first how long it is, so one that
is broken does not hide those behind it. The format, version 2, is in Kafka's own documentation
("Record Batch"); of older ones only the offset is read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from aiokafka.record.util import calc_crc32c, decode_varint

from aril.fetching.layout import CHECKED_FROM, CODEC_BITS, HEADER_BYTES, MAGIC, REST, START, size_of
from aril.fetching.packed import TooLargeError, unpack
from aril.worker.job import Record

if TYPE_CHECKING:
    from aril.worker.job import Partition

_APPEND_TIME_BIT: Final = 0x08
_CONTROL_BIT: Final = 0x20
# What reading untrusted bytes may raise; each codec raises kinds of its own beside these.
_BROKEN: Final = (ValueError, IndexError, OverflowError, struct.error)

RECORD: Final = "unreadable_record"
BATCH: Final = "unreadable_batch"
MAX_RECORDS: Final = 100_000
"""Of a batch that is read by hand: 60 MB of objects. One of a megabyte has room for 17,000 jobs."""


@dataclass(frozen=True, slots=True)
class Part:
    """A record of a batch; where it is broken, what is left of it: its raw bytes as value."""

    record: Record
    reason: str | None = None  # why it is put aside: RECORD or BATCH
    why: str = ""


class RawBatch(NamedTuple):
    """What could be read, in the order of offsets, and the offset behind the batch."""

    parts: list[Part]
    next_offset: int


class _Header(NamedTuple):
    base: int
    crc: int
    attributes: int
    last_offset: int
    first_ms: int
    last_ms: int
    records: int


def read_batch(source: Partition, raw: bytes, position: int) -> RawBatch:
    """Read a whole batch from an offset on; never raises."""
    try:
        header = _header_of(raw)
    except (ValueError, struct.error) as error:
        last = position
        if len(raw) >= START.size and START.unpack_from(raw)[3] < MAGIC:
            last = max(position, START.unpack_from(raw)[0])  # of its only, or its last, message
        return RawBatch([_whole(source, raw, position, 0, str(error))], last + 1)
    after = max(position, header.last_offset) + 1
    if header.attributes & _CONTROL_BIT:
        return RawBatch([], after)
    try:
        _check_count(header)
        body = bytearray(unpack(header.attributes & CODEC_BITS, raw[HEADER_BYTES:]))
    except (_CountError, TooLargeError) as error:
        return RawBatch([_whole(source, raw, position, header.last_ms, str(error))], after)
    except Exception as error:  # noqa: BLE001 - each codec raises what it likes
        told = f"the records cannot be unpacked: {type(error).__name__}"
        return RawBatch([_whole(source, raw, position, header.last_ms, told)], after)
    return RawBatch(_parts(source, header, body, position, after), after)


def _header_of(raw: bytes) -> _Header:
    """Return what stands before the records. Raises ValueError if it cannot be believed."""
    base, _, _, magic = START.unpack_from(raw)
    if magic != MAGIC:
        raise ValueError(f"a batch of format {magic}")
    if size_of(raw) != len(raw) or len(raw) < HEADER_BYTES:
        raise ValueError("a batch whose length is wrong")
    crc, attributes, last_delta, first_ms, last_ms, _, _, _, count = REST.unpack_from(
        raw, START.size
    )
    if calc_crc32c(raw[CHECKED_FROM:]) != crc:
        raise ValueError("a batch whose checksum is wrong")
    return _Header(base, crc, attributes, base + last_delta, first_ms, last_ms, count)


class _CountError(ValueError):
    """A batch that says to have more records than it has offsets, or than anybody sends."""


def _check_count(header: _Header) -> None:
    """Raise _CountError if the header gainsays itself: offsets behind it are not its to finish."""
    offsets = header.last_offset - header.base + 1
    if not 0 <= header.records <= offsets:
        raise _CountError(f"a batch of {header.records} records in {offsets} offsets")
    if header.records > MAX_RECORDS:
        raise _CountError(f"a batch of {header.records} records, at most {MAX_RECORDS} are read")


def _parts(
    source: Partition, header: _Header, body: bytearray, position: int, after: int
) -> list[Part]:
    parts: list[Part] = []
    at, due = 0, header.base  # `due`: the lowest offset that the next record may have
    for left in reversed(range(header.records)):  # behind this one, each with an offset of its own
        try:
            length, start = decode_varint(body, at)
            if length <= 0 or start + length > len(body):
                raise ValueError("a record whose length is wrong")
        except _BROKEN as error:
            # Where the next one begins is not known either: the rest is kept as it is.
            rest = bytes(body[at:])
            told = str(error) or type(error).__name__
            if after > max(due, position):
                parts.append(_whole(source, rest, max(due, position), header.last_ms, told))
            return parts
        at = start + length
        record = body[start:at]
        part = _part(source, header, record, due)
        if not due <= part.record.offset <= header.last_offset - left:
            lost = Record(source, due, header.last_ms, None, bytes(record), ())
            part = Part(lost, RECORD, "a record whose offset is wrong")
        due = part.record.offset + 1
        if part.record.offset >= position:
            parts.append(part)
    if at < len(body) and after > max(due, position):
        told = "bytes behind the last record"
        parts.append(_whole(source, bytes(body[at:]), max(due, position), header.last_ms, told))
    return parts


def _part(source: Partition, header: _Header, record: bytearray, due: int) -> Part:
    offset, moment = due, header.last_ms
    try:
        _, at = decode_varint(record, 0)
        delta, at = decode_varint(record, at)
        if not header.attributes & _APPEND_TIME_BIT:
            moment = header.first_ms + delta
        delta, at = decode_varint(record, at)
        offset = header.base + delta
        key, at = _bytes(record, at)
        value, at = _bytes(record, at)
        headers = _headers(record, at)
    except _BROKEN as error:
        told = str(error) or type(error).__name__
        return Part(Record(source, offset, moment, None, bytes(record), ()), RECORD, told)
    return Part(Record(source, offset, moment, key, value, headers))


def _headers(record: bytearray, at: int) -> tuple[tuple[str, bytes | None], ...]:
    count, at = decode_varint(record, at)
    if not 0 <= count <= len(record):
        raise ValueError("a wrong number of headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, at = _bytes(record, at)
        if name is None:
            raise ValueError("a header without a name")
        value, at = _bytes(record, at)
        # As Kafka's own client reads it: a name that is no text is no reason to answer nobody.
        headers.append((name.decode(errors="replace"), value))
    if at != len(record):
        raise ValueError("bytes behind the headers")
    return tuple(headers)


def _bytes(record: bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(record, at)
    if length < 0:
        return None, at
    if at + length > len(record):
        raise ValueError("a field longer than its record")
    return bytes(record[at : at + length]), at + length


def _whole(source: Partition, raw: bytes, offset: int, moment: int, why: str) -> Part:
    return Part(Record(source, offset, moment, None, raw, ()), BATCH, why)
