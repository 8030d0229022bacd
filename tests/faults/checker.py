"""Decides whether a run with faults kept the promise: no token lost, doubled, mixed or altered.

Pure. Each rule has a name, so that its own test can show that it fires.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from schemas import ClaimRecord, DoneEvent, ErrorEvent, ResetEvent, TokensEvent, TokensRecord
from tests.faults.history import Name, fold
from tests.support.fault_content import text_of, tokens_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas import Epoch, Event
    from tests.faults.history import Asked, Folded, History, Logged

NEVER_MS = 2**63


class Violation(NamedTuple):
    """A broken rule: its name, where it broke, and what was seen."""

    rule: str
    where: str
    text: str


@dataclass(slots=True)
class Report:
    """What a history holds, and every rule it breaks."""

    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def rules(self) -> set[str]:
        """The names of the broken rules."""
        return {each.rule for each in self.violations}

    def add(self, rule: str, where: object, text: str) -> None:
        """Note a broken rule."""
        self.violations.append(Violation(rule, str(where), text))


def check(history: History) -> Report:
    """Check every rule."""
    report = Report()
    asked = {each.name: each for each in history.asked}
    logs = {name: (log, fold(log)) for name, log in history.by_job.items()}
    for name, job in asked.items():
        _, folded = logs.get(name, ([], fold([])))
        _check_end(report, job, folded)
        _check_events(report, job, "late", folded.events)
        _check_epochs(report, history, job, folded)
        report.counts["jobs"] += 1
        report.counts["tokens"] += folded.stream.count
        report.counts["resets"] += folded.stream.resets
    for name, (log, _) in logs.items():
        if name not in asked:
            report.add("unknown_job", name, "a reply to a job that this tenant never sent")
            continue
        _check_log(report, history, name, log)
    for name, events in history.live:
        _check_events(report, asked[name], "live", events)
        _check_agreement(report, asked[name], events, logs.get(name, ([], fold([])))[1])
    for name in history.unfinished:
        report.add("liveness", name, "no end, though every fault was healed")
    finished = _check_dead(report, history, {name: folded for name, (_, folded) in logs.items()})
    _check_committed(report, history, finished)
    return report


def _check_end(report: Report, job: Asked, folded: Folded) -> None:
    if not folded.stream.finished and job.outcome == "ok":
        report.add("terminal", job.name, f"no visible end after {folded.stream.count} tokens")
    if isinstance(folded.stream.terminal, ErrorEvent):
        told = folded.stream.terminal
        report.add("error", job.name, f"{told.code.value}: {told.message}")


@dataclass(slots=True)
class _Reading:
    """One reader's events of a job, checked as they come: indices, content, one terminal."""

    report: Report
    job: Asked
    where: str
    count: int = 0
    text: str = ""
    ended: bool = False

    def take(self, event: Event) -> None:
        """Check the next event."""
        if self.ended:
            self.report.add("after_terminal", self.where, f"{event} behind the terminal")
        if isinstance(event, ResetEvent):
            self.count, self.text = 0, ""
            return
        if event.index != self.count:
            self.report.add("index", self.where, f"index {event.index}, {self.count} is next")
        if isinstance(event, TokensEvent):
            _check_content(self.report, self.job.name, self.where, event)
            self.count += len(event.ids)
            self.text += event.text
            return
        self.ended = True
        if isinstance(event, DoneEvent):
            self._done(event)

    def _done(self, event: DoneEvent) -> None:
        if event.index != self.job.tokens:
            self.report.add("length", self.where, f"{event.index} tokens of {self.job.tokens}")
        if self.text + event.text != text_of(*self.job.name, 0, self.job.tokens):
            self.report.add("text", self.where, "the joined text is not the answer's")


def _check_events(report: Report, job: Asked, reader: str, events: Sequence[Event]) -> None:
    reading = _Reading(report, job, f"{job.name} ({reader})")
    for event in events:
        reading.take(event)
    if not reading.ended and reader == "live" and job.outcome == "ok":
        report.add("terminal", reading.where, f"the stream ended after {reading.count} tokens")


def _check_content(
    report: Report, name: Name, where: str, tokens: TokensEvent | TokensRecord
) -> None:
    end = tokens.index + len(tokens.ids)
    if tokens.ids != tokens_of(*name, end)[tokens.index :]:
        report.add("content", where, f"tokens {tokens.index} to {end} are not its own")


def _check_epochs(report: Report, history: History, job: Asked, folded: Folded) -> None:
    """Check that visible epochs rise, and that a zombie explains a reset."""
    last: Epoch | None = None
    for logged, events in folded.steps:
        epoch = logged.record.epoch
        if last is not None and epoch < last:
            report.add("epoch", job.name, f"{epoch} is visible after {last}")
        if any(isinstance(event, ResetEvent) for event in events):
            risen = last is not None and epoch.generation > last.generation
            if not (history.zombies and risen):
                report.add("reset", job.name, f"withdrawn at offset {logged.offset}, {epoch}")
        last = epoch


def _check_log(report: Report, history: History, name: Name, log: Sequence[Logged]) -> None:
    """Check all that was written for a job, also what no reader sees."""
    writers: dict[Epoch, str] = {}
    for each in log:
        record, where = each.record, f"{name} at {each.partition}/{each.offset}"
        report.counts["records"] += 1
        report.counts["claims"] += isinstance(record, ClaimRecord)
        if each.key != name.job.encode():
            report.add("key", where, f"key {each.key!r}")
        if isinstance(record, TokensRecord):
            _check_content(report, name, where, record)
        writer = writers.setdefault(record.epoch, record.worker)
        if writer != record.worker and not history.generations_restarted:
            report.add("two_writers", where, f"{record.epoch}: {writer} and {record.worker}")


def _check_agreement(report: Report, job: Asked, live: Sequence[Event], late: Folded) -> None:
    """Check that a live reader and one that comes when all is over have the same answer."""
    visible = late.stream
    ids: list[int] = []
    texts: list[str] = []
    for event in live:
        if isinstance(event, ResetEvent):
            ids, texts = [], []
        elif isinstance(event, TokensEvent):
            ids += event.ids
            texts.append(event.text)
        elif isinstance(event, DoneEvent):
            texts.append(event.text)
    if job.outcome == "ok":
        same = ids == visible.token_ids and "".join(texts) == visible.text
    else:
        same = ids == visible.token_ids[: len(ids)] and visible.text.startswith("".join(texts))
    if not same:
        report.add("agreement", job.name, f"live {len(ids)} tokens, late {visible.count}")


def _check_dead(
    report: Report, history: History, logs: dict[Name, Folded]
) -> dict[tuple[int, int], int]:
    """Check that poison is put aside, and only poison; return when each input was finished."""
    buried: dict[tuple[int, int], int] = {}
    for each in history.dead:  # at least once: readers drop the second by its key
        place = (each.partition, each.offset)
        buried[place] = min(each.at_ms, buried.get(place, NEVER_MS))
    finished: dict[tuple[int, int], int] = {}
    for record in history.inputs:
        place = (record.partition, record.offset)
        dead_ms = buried.pop(place, None)
        if record.name is None:
            if dead_ms is None:
                report.add("poison", place, "poison was not put aside")
            finished[place] = NEVER_MS if dead_ms is None else dead_ms
            report.counts["poison"] += 1
            continue
        if dead_ms is not None:
            report.add("poison", place, f"{record.name} is a dead letter, and no poison")
        folded = logs.get(record.name)
        ended_ms = folded.ended_ms if folded is not None else None
        finished[place] = NEVER_MS if ended_ms is None else ended_ms
    for place in buried:
        report.add("poison", place, "a dead letter of no input record")
    report.counts["dead letters"] += len(history.dead)
    return finished


def _check_committed(
    report: Report, history: History, finished: dict[tuple[int, int], int]
) -> None:
    """Check that nothing counted as finished before its terminal stood in the log."""
    by_partition: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for (partition, offset), moment in sorted(finished.items()):
        by_partition[partition].append((offset, moment))
    latest = {  # of all records up to an offset, when the last one was finished
        partition: list(accumulate((moment for _, moment in records), max))
        for partition, records in by_partition.items()
    }
    for each in history.committed:
        records = by_partition[each.partition]
        below = sum(offset < each.position for offset, _ in records)
        if below and latest[each.partition][below - 1] > each.at_ms:
            report.add("committed", each.partition, f"position {each.position} at {each.at_ms}")
        for offset, moment in records[below:]:
            if moment > each.at_ms and any(offset in run for run in each.done):
                report.add("committed", each.partition, f"offset {offset} in the done list")
    report.counts["commits seen"] += len(history.committed)
