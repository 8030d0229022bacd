"""The rules for the jobs topic: what is put aside, and what counts as finished, and when."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.history import Folded, History, Input, Name
    from tests.faults.report import Report

Place = tuple[int, int]
"""Partition and offset."""

NEVER_MS = 2**63
UNREADABLE = "unreadable batches and records"


def check_dead(report: Report, history: History, logs: dict[Name, Folded]) -> dict[Place, int]:
    """Check that poison is put aside, and only poison; return when each input was finished."""
    buried: dict[Place, int] = {}
    for each in history.dead:  # at least once: readers drop the second by its key
        place = (each.partition, each.offset)
        buried[place] = min(each.at_ms, buried.get(place, NEVER_MS))
    finished: dict[Place, int] = {}
    first: dict[Name, Input] = {}
    for record in history.inputs:
        place = (record.partition, record.offset)
        places = [(record.partition, record.offset + at) for at in range(record.span)]
        letters = [buried.pop(each) for each in places if each in buried]
        dead_ms = min(letters, default=None)
        if record.name is not None and record.kind != "cancel":
            first.setdefault(record.name, record)
        if record.name is None or (record.kind == "broken" and first[record.name] is record):
            if dead_ms is None:
                report.add("poison", place, "poison was not put aside")
            finished |= dict.fromkeys(places, NEVER_MS if dead_ms is None else dead_ms)
            report.counts[UNREADABLE if record.kind == "unreadable" else "poison"] += 1
            continue
        if record.kind == "broken":  # sent twice: it is finished, put aside or not, with the first
            twin = first[record.name]
            finished[place] = finished[twin.partition, twin.offset]
            continue
        if dead_ms is not None:
            report.add("poison", place, f"{record.name} is a dead letter, and no poison")
        finished[place] = _finished_ms(record, first.get(record.name), logs.get(record.name))
    for place in buried:
        report.add("poison", place, "a dead letter of no input record")
    report.counts["dead letters"] += len(history.dead)
    return finished


def _finished_ms(record: Input, first: Input | None, folded: Folded | None) -> int:
    """Return when a job's answer, and so its record, was finished; a cancel waits for its job."""
    if record.kind == "cancel" and (first is None or first.partition != record.partition):
        return 0  # the topic grew in between: whoever reads it knows no such job
    ended_ms = folded.ended_ms if folded is not None else None
    return NEVER_MS if ended_ms is None else ended_ms


def check_committed(report: Report, history: History, finished: dict[Place, int]) -> None:
    """Check that nothing counted as finished before its terminal stood in the log."""
    offsets: dict[int, list[int]] = defaultdict(list)
    moments: dict[int, list[int]] = defaultdict(list)
    for (partition, offset), moment in sorted(finished.items()):
        offsets[partition].append(offset)
        moments[partition].append(moment)
    latest = {  # of all records up to an offset, when the last one was finished
        partition: list(accumulate(found, max)) for partition, found in moments.items()
    }
    for each in history.committed:
        known = offsets[each.partition]
        below = bisect_left(known, each.position)
        if below and latest[each.partition][below - 1] > each.at_ms:
            report.add("committed", each.partition, f"position {each.position} at {each.at_ms}")
        for run in each.done:
            for index in range(bisect_left(known, run.start), bisect_left(known, run.stop)):
                if moments[each.partition][index] > each.at_ms:
                    told = f"offset {known[index]} in the done list"
                    report.add("committed", each.partition, told)
    report.counts["commits seen"] += len(history.committed)
