"""The rules for outages that are one tenant's: who else is answered, and what that one is told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aril.schemas import DoneEvent, ErrorCode
from tests.faults.offsets import NEVER_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.faults.history import Asked, Folded, History, Name, Outage
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
            each.tenant == job.name.tenant
            and each.adapter in job.adapters
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
    """Check that nobody else waited for an outage's end, and that all others had answers in it."""
    sent = sent_ms(history)
    given_up = set(history.unfinished)  # their readers cancel them, which ends them, too
    waited_for = given_up | {name for name, _ in history.live}
    ended = {
        name: each.ended_ms
        for name, each in logs.items()
        if each.ended_ms is not None and name not in given_up
    }
    for outage in history.outages:
        others = [
            name
            for name, job in asked.items()
            if name.tenant != outage.tenant and job.outcome == "ok"
            if name in waited_for and outage.begun_ms <= sent.get(name, 0) <= outage.settled_ms
        ]
        for name in others:
            if ended.get(name, NEVER_MS) > outage.ended_ms:
                report.add(
                    "stood_still", name, f"it waited for the end of {outage.tenant}'s outage"
                )
        _check_all_answered(report, outage, asked, sent, logs)
    report.counts["outages"] += len(history.outages)


def _check_all_answered(
    report: Report,
    outage: Outage,
    asked: Mapping[Name, Asked],
    sent: Mapping[Name, int],
    logs: Mapping[Name, Folded],
) -> None:
    """Check that each other tenant had an answer meanwhile, without an adapter and by one."""
    tenants = {name.tenant for name in asked} - {outage.tenant}
    wanted = {(tenant, adapted) for tenant in tenants for adapted in (False, True)}
    for name, folded in logs.items():
        if isinstance(folded.stream.terminal, DoneEvent) and name in asked and name in sent:
            assert folded.ended_ms is not None
            if outage.begun_ms <= sent[name] and folded.ended_ms <= outage.ended_ms:
                wanted.discard((name.tenant, bool(asked[name].adapters)))
    for tenant, adapted in sorted(wanted):
        how = "by an adapter" if adapted else "without an adapter"
        report.add("stood_still", tenant, f"no answer {how} in an outage of {outage.tenant}'s")
