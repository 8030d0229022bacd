"""What members and leader tell each other in a rebalance, as bytes in the group's own requests.

A member's **report** rides in its JoinGroup, the leader's **notice** in the assignment: msgpack
maps, read as untrusted records are. Both are bounded and neither is believed: bytes that are cut,
of another version or longer than REPORT_BYTES read as None, which is "nothing known". Loads are in
eighths of a row. Reports leave out adapters first, then partitions, when they would get too long:
what is left out is unknown to the leader, which is worse for its guess and wrong for nobody.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgpack
from pydantic import BaseModel, Field, StrictBool

from aril.schemas.errors import DecodeError
from aril.schemas.unpack import unpack_map
from aril.worker.job import Partition
from aril.worker.placement.plan import PartitionLoad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION: Final = 1
# Of one report. All of a group's stand in one record of the broker's, 1 MiB unless told otherwise.
REPORT_BYTES: Final = 16_384
MAX_ADAPTERS: Final = 64  # of a member
MAX_PARTITION_ADAPTERS: Final = 4  # of a partition
MAX_ROWS: Final = 4_096  # of a member, as in the settings
MAX_LOAD: Final = 1_000_000  # rows
MAX_SUM: Final = 1_000_000_000_000  # rows of all partitions: a number that floats keep exact
MAX_NAME: Final = 249  # bytes of a topic's name, as Kafka has it
MAX_NUMBER: Final = 2**31 - 1
EIGHTHS: Final = 8


_Number = Annotated[int, Field(strict=True, ge=0, le=MAX_NUMBER)]
_Eighths = Annotated[int, Field(strict=True, ge=0, le=MAX_LOAD * EIGHTHS)]
_Marks = list[Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]]
_Name = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_NAME)]
# One topic's partitions: their numbers, their loads, their adapters, which may be left out.
_Topic = tuple[_Name, list[_Number], list[_Eighths | None], list[_Marks]]


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


class _ReportFields(BaseModel):
    """A report's map."""

    v: Literal[1]
    sequence: _Number
    rows: Annotated[int, Field(strict=True, ge=1, le=MAX_ROWS)]
    generation: Annotated[int, Field(strict=True, ge=-1, le=MAX_NUMBER)]
    draining: StrictBool
    asked: StrictBool
    adapters: Annotated[_Marks, Field(max_length=MAX_ADAPTERS)]
    held: list[_Topic]


class _NoticeFields(BaseModel):
    """A notice's map."""

    v: Literal[1]
    open: _Number
    standby: _Number
    load: Annotated[int, Field(strict=True, ge=0, le=MAX_SUM * EIGHTHS)]
    rows: _Number
    asked: StrictBool
    closes: StrictBool
    loads: list[_Eighths]


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
        told = _ReportFields.model_validate(unpack_map(data, REPORT_BYTES))
        held = {
            Partition(topic, number): PartitionLoad(
                None if load is None else load / EIGHTHS, tuple(marks[:MAX_PARTITION_ADAPTERS])
            )
            for topic, numbers, loads, adapters in told.held
            for number, load, marks in zip(
                numbers, loads, adapters or [[]] * len(numbers), strict=True
            )
        }
    except (DecodeError, ValueError):
        return None
    return Report(
        sequence=told.sequence,
        rows=told.rows,
        generation=told.generation,
        draining=told.draining,
        asked=told.asked,
        adapters=tuple(told.adapters),
        held=held,
    )


def encode_notice(notice: Notice) -> bytes:
    """Encode a notice; loads that would make it too long are left out, all of them."""
    fields: dict[str, Any] = {
        "v": VERSION,
        "open": notice.open,
        "standby": notice.standby,
        "load": round(min(notice.load, MAX_SUM) * EIGHTHS),
        "rows": min(notice.rows, MAX_NUMBER),
        "asked": notice.asked,
        "closes": notice.closes,
        "loads": [_eighths(each) for each in notice.loads],
    }
    data: bytes = msgpack.packb(fields)
    return data if len(data) <= REPORT_BYTES else bytes(msgpack.packb(fields | {"loads": []}))


def decode_notice(data: bytes) -> Notice | None:
    """Decode the leader's notice; None where there is nothing to believe. Never raises."""
    try:
        told = _NoticeFields.model_validate(unpack_map(data, REPORT_BYTES))
    except (DecodeError, ValueError):
        return None
    return Notice(
        open=told.open,
        standby=told.standby,
        load=told.load / EIGHTHS,
        rows=told.rows,
        asked=told.asked,
        closes=told.closes,
        loads=tuple(each / EIGHTHS for each in told.loads),
    )


def _report(
    report: Report, held: Sequence[tuple[Partition, PartitionLoad]], adapters: int
) -> bytes:
    topics = []
    for topic, of_topic in groupby(held, key=lambda each: each[0].topic):
        each = list(of_topic)
        loads = [None if load.rows is None else _eighths(load.rows) for _, load in each]
        marks = [load.adapters[:adapters] for _, load in each] if adapters else []
        topics.append((topic, [source.partition for source, _ in each], loads, marks))
    fields = {
        "v": VERSION,
        "sequence": report.sequence & MAX_NUMBER,
        "rows": report.rows,
        "generation": report.generation,
        "draining": report.draining,
        "asked": report.asked,
        "adapters": report.adapters[:MAX_ADAPTERS],
        "held": topics,
    }
    return bytes(msgpack.packb(fields))


def _eighths(rows: float) -> int:
    return round(min(max(rows, 0.0), MAX_LOAD) * EIGHTHS)
