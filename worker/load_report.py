"""What members and leader tell each other in a rebalance, as bytes in the group's own requests.

A member's **report** rides in its JoinGroup, the leader's **notice** in the assignment:

    version (1 byte) · CRC32 of the body · body of LEB128 varints, names and 4-byte adapter marks

Both are bounded and neither is believed: bytes that are cut, damaged, of another version or
longer than REPORT_BYTES read as None, which is "nothing known". Loads are in eighths of a row.
Reports leave out adapters first, then partitions, when they would get too long: what is left out is
unknown to the leader, which is worse for its guess and wrong for nobody.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final

from worker.jobs import Partition
from worker.placement import PartitionLoad

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

VERSION: Final = 1
# Of one report. All of a group's stand in one record of the broker's, 1 MiB unless told otherwise.
REPORT_BYTES: Final = 16_384
MAX_ADAPTERS: Final = 64  # of a member
MAX_PARTITION_ADAPTERS: Final = 4  # of a partition
MAX_ROWS: Final = 4_096  # of a member, as in the settings
MAX_LOAD: Final = 1_000_000  # rows
MAX_NAME: Final = 249  # bytes of a topic's name, as Kafka has it
MAX_NUMBER: Final = 2**31 - 1
EIGHTHS: Final = 8

_HEAD: Final = struct.Struct(">BI")
_MARK: Final = struct.Struct(">I")
_LAST_SHIFT: Final = 35
_DRAINING, _ASKED, _CLOSES = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Report:
    """One member's part: what it can take, what it has."""

    sequence: int  # differs each time: to a broker the same bytes again are no reason to rebalance
    rows: int
    generation: int = -1
    draining: bool = False
    asked: bool = False  # the rebalance is its wish
    adapters: tuple[int, ...] = ()
    held: Mapping[Partition, PartitionLoad] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Notice:
    """What the leader found, for one member. Loads and rows are sums over the open workers."""

    open: int  # workers that hold partitions
    standby: int
    load: float
    rows: int
    asked: bool = False  # somebody had asked for the rebalance
    closes: bool = False  # this member is the one to be emptied next
    loads: tuple[float, ...] = ()  # of its partitions, in the assignment's order


class _UnreadableError(ValueError):
    """The bytes are not what they should be."""


def mark_of(digest: str) -> int:
    """Return what stands for an adapter's content digest in a report: 32 bits."""
    return zlib.crc32(digest.encode())


def encode_report(report: Report) -> bytes:
    """Encode a report, shortened until it fits into REPORT_BYTES."""
    held = sorted(report.held.items())
    for adapters in (MAX_PARTITION_ADAPTERS, 1, 0):
        data = _report(report, held, adapters)
        if len(data) <= REPORT_BYTES:
            return data
    while len(data := _report(report, held, 0)) > REPORT_BYTES:
        held = held[: len(held) * REPORT_BYTES // (len(data) + 64)]
    return data


def decode_report(data: bytes) -> Report | None:
    """Decode a member's report; None where there is nothing to believe. Never raises."""
    try:
        body = _Body(data)
        flags, sequence, rows, generation = (body.number() for _ in range(4))
        adapters = tuple(body.mark() for _ in range(body.count(MAX_ADAPTERS)))
        held: dict[Partition, PartitionLoad] = {}
        for _ in range(body.number()):
            topic, number = body.name(), -1
            for _ in range(body.number()):
                number += body.number() + 1
                load = body.number()
                marks = tuple(body.mark() for _ in range(body.count(MAX_PARTITION_ADAPTERS)))
                rows_of = None if not load else min((load - 1) / EIGHTHS, MAX_LOAD)
                held[Partition(topic, number)] = PartitionLoad(rows_of, marks)
        body.end()
    except _UnreadableError:
        return None
    if not 1 <= rows <= MAX_ROWS:
        return None
    return Report(
        sequence=sequence,
        rows=rows,
        generation=generation - 1,
        draining=bool(flags & _DRAINING),
        asked=bool(flags & _ASKED),
        adapters=adapters,
        held=held,
    )


def encode_notice(notice: Notice) -> bytes:
    """Encode a notice; loads that would make it too long are left out, all of them."""
    head = [
        _ASKED * notice.asked | _CLOSES * notice.closes,
        notice.open,
        notice.standby,
        _eighths(notice.load),
        min(notice.rows, MAX_NUMBER),
    ]
    loads = list(map(_eighths, notice.loads))
    data = _sealed(_varints([*head, len(loads), *loads]))
    return data if len(data) <= REPORT_BYTES else _sealed(_varints([*head, 0]))


def decode_notice(data: bytes) -> Notice | None:
    """Decode the leader's notice; None where there is nothing to believe. Never raises."""
    try:
        body = _Body(data)
        flags, opened, standby, load, rows = (body.number() for _ in range(5))
        loads = tuple(body.number() / EIGHTHS for _ in range(body.number()))
        body.end()
    except _UnreadableError:
        return None
    return Notice(
        open=opened,
        standby=standby,
        load=load / EIGHTHS,
        rows=rows,
        asked=bool(flags & _ASKED),
        closes=bool(flags & _CLOSES),
        loads=loads,
    )


def _report(
    report: Report, held: Sequence[tuple[Partition, PartitionLoad]], adapters: int
) -> bytes:
    flags = _DRAINING * report.draining | _ASKED * report.asked
    body = _varints([flags, report.sequence & MAX_NUMBER, report.rows, report.generation + 1])
    body += _marks(report.adapters[:MAX_ADAPTERS])
    topics = [(topic, list(each)) for topic, each in groupby(held, key=lambda it: it[0].topic)]
    body += _varints([len(topics)])
    for topic, each in topics:
        name = topic.encode()
        body += _varints([len(name)]) + name + _varints([len(each)])
        last = -1
        for (_, number), load in each:
            told = 0 if load.rows is None else _eighths(load.rows) + 1
            body += _varints([number - last - 1, told]) + _marks(load.adapters[:adapters])
            last = number
    return _sealed(body)


def _eighths(rows: float) -> int:
    return round(min(max(rows, 0.0), MAX_LOAD) * EIGHTHS)


def _sealed(body: bytes) -> bytes:
    return _HEAD.pack(VERSION, zlib.crc32(body)) + body


def _marks(marks: Sequence[int]) -> bytes:
    return _varints([len(marks)]) + b"".join(map(_MARK.pack, marks))


def _varints(values: Iterable[int]) -> bytes:
    out = bytearray()
    for value in values:
        rest = value
        while rest > 0x7F:  # noqa: PLR2004 - seven bits a byte
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)


class _Body:
    """Reads a body from front to end. Counts need no bound: each item takes a byte or more."""

    def __init__(self, data: bytes) -> None:
        if not _HEAD.size < len(data) <= REPORT_BYTES:
            raise _UnreadableError
        version, checksum = _HEAD.unpack_from(data)
        self._data = data[_HEAD.size :]
        self._at = 0
        if version != VERSION or checksum != zlib.crc32(self._data):
            raise _UnreadableError

    def number(self) -> int:
        value = shift = 0
        while shift < _LAST_SHIFT and self._at < len(self._data):
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                if value > MAX_NUMBER:
                    break
                return value
            shift += 7
        raise _UnreadableError

    def count(self, most: int) -> int:
        value = self.number()
        if value > most:
            raise _UnreadableError
        return value

    def mark(self) -> int:
        return int(_MARK.unpack(self._take(_MARK.size))[0])

    def name(self) -> str:
        try:
            return self._take(self.count(MAX_NAME)).decode()
        except UnicodeDecodeError:
            raise _UnreadableError from None

    def end(self) -> None:
        if self._at != len(self._data):
            raise _UnreadableError

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise _UnreadableError
        self._at += size
        return taken
