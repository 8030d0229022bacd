"""The rules for outages that are one tenant's: who else is answered, and what that one is told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from schemas import DoneEvent, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.faults.history import Asked, Folded, History, Name
    from tests.faults.report import Report

INTERNAL = frozenset({ErrorCode.INTERNAL.value})


def sent_ms(history: History) -> dict[Name, int]:
    """Return when each job's first record was appended."""
    found: dict[Name, int] = {}
    for record in history.inputs:
        if record.name is not None and record.kind == "job":
            found.setdefault(record.name, record.at_ms)
    return found


def excused(history: History, logs: Mapping[Name, Folded]) -> dict[Name, Asked]:
    """Return all jobs; to those whose adapter's store was ill an error of ours is a right end."""
    sent = sent_ms(history)
    ill = [each for each in history.outages if each.ill]
    found = {}
    for job in history.asked:
        ended = logs[job.name].ended_ms if job.name in logs else None
        touched = any(
            (each.tenant, each.adapter) == (job.name.tenant, job.adapter)
            and job.name in sent
            and sent[job.name] <= each.ended_ms
            and (ended is None or ended >= each.begun_ms)
            for each in ill
        )
        found[job.name] = replace(job, ends=job.ends | INTERNAL) if touched else job
    return found


def check_outages(
    report: Report, history: History, asked: Mapping[Name, Asked], logs: Mapping[Name, Folded]
) -> None:
    """Check that during each outage all others had answers, without adapters and with them."""
    sent = sent_ms(history)
    answered = [
        (sent[name], ended_ms, (name.tenant, asked[name].adapter is not None))
        for name, folded in logs.items()
        if name in asked and name in sent and isinstance(folded.stream.terminal, DoneEvent)
        if (ended_ms := folded.ended_ms) is not None
    ]
    tenants = {name.tenant for name in asked}
    for each in history.outages:
        going = {
            whose
            for begun, ended, whose in answered
            if each.begun_ms <= begun and ended <= each.ended_ms
        }
        wanted = {(name, adapted) for name in tenants - {each.tenant} for adapted in (False, True)}
        for tenant, adapted in sorted(wanted - going):
            how = "by an adapter" if adapted else "without an adapter"
            told = f"no job {how} was answered in {each.ended_ms - each.begun_ms} ms"
            report.add("stood_still", tenant, f"{told} of an outage that was {each.tenant}'s")
    report.counts["outages"] += len(history.outages)
