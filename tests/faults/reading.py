"""The rules for what one reader of a job was given: indices, content, one end, the right one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aril.schemas import DoneEvent, ErrorEvent, ResetEvent, TokensEvent, TokensRecord
from tests.faults.history import DONE
from tests.support.fault_forms import BY_FORM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.schemas import Event
    from tests.faults.history import Asked, Folded
    from tests.faults.report import Report


@dataclass(slots=True)
class _Reading:
    """One reader's events of a job, checked as they come."""

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
            check_content(self.report, self.job, self.where, event)
            self.count += len(event.ids)
            self.text += event.text
            return
        self.ended = True
        if isinstance(event, DoneEvent):
            self._done(event)
        else:
            self._failed(event)

    def _done(self, event: DoneEvent) -> None:
        job = self.job
        if DONE not in job.ends:
            self.report.add("refusal", self.where, f"answered, {sorted(job.ends)} is right")
        if event.index != job.length:
            self.report.add("length", self.where, f"{event.index} tokens of {job.length}")
        if job.form in BY_FORM and event.finish_reason == "stop":
            fault = BY_FORM[job.form].fault(self.text + event.text)
            if fault is not None:
                self.report.add("form", self.where, f"{job.form}: {fault}")
        if self.text + event.text != job.text:
            self.report.add("text", self.where, "the joined text is not the answer's")
        found = (event.adapter, event.digest, event.adapters, event.activation)
        if found != (job.adapter, job.digest, job.told, job.activation):
            self.report.add("adapter", self.where, f"answered by {found}")

    def _failed(self, event: ErrorEvent) -> None:
        if event.code.value not in self.job.ends:
            self.report.add("error", self.where, f"{event.code.value}: {event.message}")
        if event.retryable != event.code.retryable:
            self.report.add("error", self.where, f"retryable={event.retryable}: {event.code.value}")
        if not self.job.text.startswith(self.text):
            self.report.add("text", self.where, "the text before the error is not the answer's")


def check_events(report: Report, job: Asked, reader: str, events: Sequence[Event]) -> None:
    """Check what a reader of a job was given, `live` or `late`."""
    reading = _Reading(report, job, f"{job.name} ({reader})")
    for event in events:
        reading.take(event)
    if not reading.ended and reader == "live" and job.outcome == "ok":
        report.add("terminal", reading.where, f"the stream ended after {reading.count} tokens")


def check_content(
    report: Report, job: Asked, where: str, tokens: TokensEvent | TokensRecord
) -> None:
    """Check that tokens are the job's own, from its own adapter, at their place."""
    end = tokens.index + len(tokens.ids)
    if tokens.ids != job.ids(tokens.index, end):
        report.add("content", where, f"tokens {tokens.index} to {end} are not its own")
    if end > job.length:
        report.add("length", where, f"tokens up to {end}, {job.length} are right")


def check_agreement(report: Report, job: Asked, live: Sequence[Event], late: Folded) -> None:
    """Check that a live reader and one that comes when all is over have the same answer."""
    visible = late.stream
    ids: list[int] = []
    texts: list[str] = []
    end: Event | None = None
    for event in live:
        if isinstance(event, ResetEvent):
            ids, texts = [], []
        elif isinstance(event, TokensEvent):
            ids += event.ids
            texts.append(event.text)
        else:
            end = event
            texts.append(event.text if isinstance(event, DoneEvent) else "")
    if job.outcome == "ok":
        same = ids == visible.token_ids and "".join(texts) == visible.text
        same = same and _end_of(end) == _end_of(visible.terminal)
    else:
        same = ids == visible.token_ids[: len(ids)] and visible.text.startswith("".join(texts))
    if not same:
        told = f"live {len(ids)} tokens, {_end_of(end)}; late {visible.count}"
        report.add("agreement", job.name, f"{told}, {_end_of(visible.terminal)}")


def _end_of(event: Event | None) -> str | None:
    if isinstance(event, ErrorEvent):
        return event.code.value
    return None if event is None else DONE
