"""Decides whether a run with faults kept the promise: no token lost, doubled, mixed or altered.

Pure. Each rule has a name, so that its own test can show that it fires.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.schemas import (
    ClaimRecord,
    DoneEvent,
    ErrorEvent,
    ResetEvent,
    TokensRecord,
    reply_partition,
)
from tests.faults.history import Name, fold
from tests.faults.offsets import check_committed, check_dead
from tests.faults.outages import check_outages, excused, sent_ms
from tests.faults.reading import check_agreement, check_content, check_events
from tests.faults.report import Report, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aril.schemas import Epoch, Event
    from tests.faults.history import Asked, Folded, History, Logged

__all__ = ["Report", "Violation", "check"]


def check(history: History) -> Report:
    """Check every rule."""
    report = Report()
    logs = {name: (log, fold(log)) for name, log in history.by_job.items()}
    folded = {name: found for name, (_, found) in logs.items()}
    asked = excused(history, folded)
    for name, job in asked.items():
        _check_job(report, history, job, folded.get(name, fold([])))
    for name, (log, _) in logs.items():
        if name in asked:
            _check_log(report, history, asked[name], log)
        else:
            report.add("unknown_job", name, "a reply to a job that this tenant never sent")
    for name, events in history.live:
        check_events(report, asked[name], "live", events)
        check_agreement(report, asked[name], events, folded.get(name, fold([])))
    for name in history.unfinished:
        report.add("liveness", name, "no end, though every fault was healed")
    _check_deadlines(report, history, folded)
    _check_withdrawn(report, history, asked)
    check_outages(report, history, asked, folded)
    finished = check_dead(report, history, folded)
    check_committed(report, history, finished)
    return report


def _check_job(report: Report, history: History, job: Asked, folded: Folded) -> None:
    stream = folded.stream
    if not stream.finished and job.outcome == "ok":
        report.add("terminal", job.name, f"no visible end after {stream.count} tokens")
    check_events(report, job, "late", folded.events)
    _check_epochs(report, history, job, folded)
    if job.outcome == "lost" and not _trimmed(history, job.name):
        report.add("lost_view", job.name, "its reader was told of a loss, and nothing was deleted")
    report.counts["jobs"] += 1
    report.counts["tokens"] += stream.count
    report.counts["resets"] += stream.resets
    if isinstance(stream.terminal, DoneEvent):
        report.counts["adapters"] += bool(job.adapters)
        report.counts["mixtures"] += bool(job.mixture)
        report.counts["scaled"] += job.scale != 1
        report.counts["invoked"] += job.activation is not None
        if job.form is not None:
            whole = stream.terminal.finish_reason == "stop"
            report.counts["constrained, whole" if whole else "constrained, cut"] += 1
    if job.codec is not None:
        report.counts[f"packed by {job.codec}"] += stream.finished
    if isinstance(stream.terminal, ErrorEvent):
        report.counts[stream.terminal.code.value] += 1


def _check_epochs(report: Report, history: History, job: Asked, folded: Folded) -> None:
    """Check that visible epochs rise, and that a zombie or a deletion explains a reset."""
    last: Epoch | None = None
    before = -1  # offset of the last visible record
    for logged, events in folded.steps:
        epoch = logged.record.epoch
        if last is not None and epoch < last:
            report.add("epoch", job.name, f"{epoch} is visible after {last}")
        if any(isinstance(event, ResetEvent) for event in events):
            risen = last is not None and epoch.generation > last.generation
            deleted = any(
                each[:2] == (logged.tenant, logged.partition)
                and before < each.offset <= logged.offset
                for each in history.trims
            )
            if not (deleted or (history.zombies and risen)):
                report.add("reset", job.name, f"withdrawn at offset {logged.offset}, {epoch}")
        last, before = epoch, logged.offset


def _check_log(report: Report, history: History, job: Asked, log: Sequence[Logged]) -> None:
    """Check all that was written for a job, also what no reader sees."""
    writers: dict[Epoch, str] = {}
    for each in log:
        record, where = each.record, f"{job.name} at {each.partition}/{each.offset}"
        report.counts["records"] += 1
        report.counts["claims"] += isinstance(record, ClaimRecord)
        if each.key != job.name.job.encode():
            report.add("key", where, f"key {each.key!r}")
        if isinstance(record, TokensRecord):
            check_content(report, job, where, record)
        writer = writers.setdefault(record.epoch, record.worker)
        if writer != record.worker and not history.generations_restarted:
            report.add("two_writers", where, f"{record.epoch}: {writer} and {record.worker}")


def _check_deadlines(report: Report, history: History, logs: Mapping[Name, Folded]) -> None:
    """Check that no job is told that its time is up before it is, on the broker's clock."""
    sent = sent_ms(history)
    for job in history.asked:
        folded = logs.get(job.name)
        if job.deadline_ms is None or folded is None or job.name not in sent:
            continue
        terminal, ended_ms = folded.stream.terminal, folded.ended_ms
        if not isinstance(terminal, ErrorEvent) or terminal.code.value != "deadline_exceeded":
            continue
        assert ended_ms is not None
        waited = ended_ms - sent[job.name]
        excused = any(first <= ended_ms <= last for first, last in history.clocks_off)
        if waited < job.deadline_ms and not excused:
            report.add("early", job.name, f"after {waited} of {job.deadline_ms} ms")


def _check_withdrawn(report: Report, history: History, asked: Mapping[Name, Asked]) -> None:
    """Check that a reader who had seen what was deleted was told so, and then had it all."""
    told = {name for name, events in history.live if _reset_after_tokens(events)}
    for name in history.withdrawn:
        if name not in told and asked[name].outcome == "ok":
            report.add("untold", name, "its prefix was deleted, and its reader saw no reset")
    report.counts["withdrawn by retention"] += len(history.withdrawn)


def _reset_after_tokens(events: Sequence[Event]) -> bool:
    return any(isinstance(event, ResetEvent) and event.withdrawn for event in events)


def _trimmed(history: History, name: Name) -> bool:
    return any(
        each.tenant == name.tenant
        and each.partition == reply_partition(name.job, history.reply_partitions)
        for each in history.trims
    )
