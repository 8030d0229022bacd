"""What a reader of all reply logs saw of each answer, and whether that is what was asked. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from aril.schemas import ClaimRecord, DoneEvent, ReleaseRecord, TokensEvent, VisibleStream
from tests.support.fault_content import text_of, tokens_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aril.schemas import ReplyRecord


class Gap(NamedTuple):
    """A silence between two records of one stream's tokens, by the monotonic clock."""

    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.ended - self.begun


@dataclass(slots=True)
class Stream:
    """One answer; times are of the monotonic clock, as the reader got the records."""

    tenant: str
    job: str
    tokens: int  # asked
    sent: float
    visible: VisibleStream = field(default_factory=VisibleStream)
    first: float | None = None  # when a token came
    last: float | None = None
    begun: bool = False  # somebody wrote more than a claim
    gaps: list[Gap] = field(default_factory=list)

    def take(self, record: ReplyRecord, at: float) -> bool:
        """Take the log's next record; tell whether it claims a job that nobody had begun."""
        in_vain = isinstance(record, ClaimRecord) and not self.begun
        self.begun = self.begun or not isinstance(record, ClaimRecord | ReleaseRecord)
        for event in self.visible.feed(record):
            if isinstance(event, TokensEvent):
                if self.first is None:
                    self.first = at
                if self.last is not None:
                    self.gaps.append(Gap(self.last, at))
                self.last = at
        return in_vain

    @property
    def running(self) -> bool:
        """Whether tokens have come and the end has not."""
        return self.first is not None and not self.visible.finished

    def verdict(self) -> str:
        """Return what the answer is: right, lost, failed, doubled or altered."""
        seen = self.visible
        if seen.terminal is None:
            return "lost"
        if not isinstance(seen.terminal, DoneEvent):
            return "failed"
        if seen.count < self.tokens:
            return "lost"
        if seen.count > self.tokens:
            return "doubled"
        ids = tokens_of(self.tenant, self.job, 0, self.tokens)
        text = text_of(self.tenant, self.job, 0, self.tokens)
        return "right" if (tuple(seen.token_ids), seen.text) == (ids, text) else "altered"


VERDICTS = ("right", "lost", "failed", "doubled", "altered")


class Streams:
    """All answers of a run, by job."""

    def __init__(self) -> None:
        self.all: dict[str, Stream] = {}
        self.open = 0
        self.claims = 0
        self.claims_unbegun = 0  # claims of jobs of which nothing else was in the log
        self.strange = 0  # records of nobody's job

    def expect(self, stream: Stream) -> None:
        """Learn of a job that is sent."""
        self.all[stream.job] = stream
        self.open += 1

    def take(self, record: ReplyRecord, at: float) -> bool:
        """Take the next record of some log; tell whether an answer ended with it."""
        stream = self.all.get(record.job)
        if stream is None:
            self.strange += 1
            return False
        before = stream.visible.finished
        self.claims_unbegun += stream.take(record, at)
        self.claims += isinstance(record, ClaimRecord)
        ended = stream.visible.finished and not before
        self.open -= ended
        return ended

    def of(self, begun: float, ended: float = float("inf")) -> list[Stream]:
        """Return the streams whose jobs were sent in a span of time."""
        return [each for each in self.all.values() if begun <= each.sent < ended]

    def first_tokens(self, begun: float, ended: float) -> list[float]:
        """Return the seconds to the first token, of jobs that were sent in a span of time."""
        return [each.first - each.sent for each in self.of(begun, ended) if each.first is not None]

    def gaps(self, begun: float, ended: float) -> Iterator[Gap]:
        """Return the silences that ended in a span of time."""
        for stream in self.all.values():
            for gap in stream.gaps:
                if begun <= gap.ended < ended:
                    yield gap

    def verdicts(self) -> Counter[str]:
        """Judge every answer."""
        found = Counter(dict.fromkeys(VERDICTS, 0))
        found.update(each.verdict() for each in self.all.values())
        found["reset"] = sum(each.visible.resets for each in self.all.values())
        return found


def share(values: Sequence[float], part: float) -> float:
    """Return the value below which that part of them lies; the worst for 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(part * (len(ordered) - 1)))]
