"""What members of the group say of themselves as it rebalances, and what the leader makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

from aril.worker.job import Partition
from aril.worker.placement.assignor import _member, notice_for
from aril.worker.placement.load_report import (
    MAX_ADAPTERS,
    MAX_LOAD,
    MAX_NUMBER,
    MAX_PARTITION_ADAPTERS,
    MAX_ROWS,
    REPORT_BYTES,
    Notice,
    Report,
    decode_notice,
    decode_report,
    encode_notice,
    encode_report,
)
from aril.worker.placement.plan import PartitionLoad, place
from aril.worker.placement.trigger import Trigger
from tests.fuzz.mutate import bend, bend_tree, chance, pick, tree
from tests.fuzz.target import ACCEPTED, Target, holds

if TYPE_CHECKING:
    from random import Random

_PARTITIONS: Final = [Partition("jobs", number) for number in range(6)]
_NAMES: Final = ("m1", "m2", "m3")


class Case(NamedTuple):
    """The reports of some members, and a notice."""

    reports: tuple[bytes, ...]
    notice: bytes


def _report(rng: Random) -> bytes:
    held = {
        pick(rng, _PARTITIONS): PartitionLoad(
            pick(rng, (None, 0.0, 0.125, 3.0, 20.0, float(MAX_LOAD))),
            tuple(int(rng.random() * 2**32) for _ in range(pick(rng, (0, 1, 4)))),
        )
        for _ in range(pick(rng, (0, 1, 3, 6)))
    }
    return encode_report(
        Report(
            sequence=int(rng.random() * MAX_NUMBER),
            rows=pick(rng, (1, 16, MAX_ROWS)),
            generation=pick(rng, (-1, 0, 5, MAX_NUMBER)),
            draining=chance(rng, 0.2),
            asked=chance(rng, 0.2),
            adapters=tuple(int(rng.random() * 2**32) for _ in range(pick(rng, (0, 1, 8)))),
            held=held,
        )
    )


def _notice(rng: Random) -> bytes:
    return encode_notice(
        Notice(
            open=pick(rng, (0, 1, 3, MAX_NUMBER)),
            standby=pick(rng, (0, 1, 3)),
            load=pick(rng, (0.0, 12.5, 4e9)),
            rows=pick(rng, (0, 16, 64, MAX_NUMBER)),
            asked=chance(rng, 0.3),
            closes=chance(rng, 0.3),
            loads=(pick(rng, (0.0, 3.5, 16.0)),) * pick(rng, (0, 1, 6)),
        )
    )


def _bent(rng: Random, data: bytes) -> bytes:
    kind = rng.random()
    if kind < 0.02:
        return bytes(msgpack.packb(tree(rng)))
    if 0.3 < kind < 0.8:
        data = msgpack.packb(bend_tree(rng, msgpack.unpackb(data)))
    return bend(rng, data) if kind > 0.75 else data


def _make(rng: Random) -> Case:
    members = 1 + int(rng.random() * len(_NAMES))
    return Case(tuple(_bent(rng, _report(rng)) for _ in range(members)), _bent(rng, _notice(rng)))


def _check(case: Case) -> str:
    reports = [decode_report(each) for each in case.reports]
    for data, report in zip(case.reports, reports, strict=True):
        if report is not None:
            _check_report(data, report)
    notice = decode_notice(case.notice)
    if notice is not None:
        _check_notice(notice)
    topics = {"jobs"}
    members = [_member(name, topics, report) for name, report in zip(_NAMES, reports, strict=False)]
    plan = place(members, _PARTITIONS)
    placed = sorted(each for held in plan.partitions.values() for each in held)
    holds(placed == _PARTITIONS, "each partition has one owner")
    for member in members:
        sent = encode_notice(notice_for(plan, member.name, asked=True))
        holds(len(sent) <= REPORT_BYTES and decode_notice(sent) is not None, "a notice is readable")
    known = sum(each is not None for each in (*reports, notice))
    return f"{ACCEPTED} {known} of {len(reports) + 1}" if known else "nothing_known"


def _check_report(data: bytes, report: Report) -> None:
    holds(type(report.rows) is int and 1 <= report.rows <= MAX_ROWS, "rows")
    holds(-1 <= report.generation <= MAX_NUMBER, "generation")
    holds(len(report.adapters) <= MAX_ADAPTERS, "adapters")
    for load in report.held.values():
        holds(load.rows is None or 0 <= load.rows <= MAX_LOAD, "load")
        holds(len(load.adapters) <= MAX_PARTITION_ADAPTERS, "a partition's adapters")
    again = encode_report(report)
    holds(len(again) <= REPORT_BYTES, "a report fits")
    if len(data) <= REPORT_BYTES // 4:  # a longer one may be shortened
        holds(decode_report(again) == report, "a report comes back as it was")


def _check_notice(notice: Notice) -> None:
    holds(notice.load >= 0 and all(0 <= each <= MAX_LOAD for each in notice.loads), "loads")
    holds(0 <= notice.rows <= MAX_NUMBER, "rows")
    again: Any = decode_notice(encode_notice(notice))
    holds(again == notice or len(notice.loads) > 1_000, "a notice comes back as it was")
    trigger = Trigger(rows=16, seconds=60.0)
    trigger.told(notice, 0.0, changed=True)
    for now in (1.0, 70.0, 400.0):
        trigger.ask(notice.loads[:4], now)


TARGET: Final = Target(
    name="reports",
    about="load reports and notices of the group: aril.worker.placement, from bytes to plan",
    share=600,
    make=_make,
    check=_check,
    size=lambda case: sum(map(len, case.reports)) + len(case.notice),
    factor=64,
)
