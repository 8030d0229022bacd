"""Spans of a worker's jobs as plain lists, where OpenTelemetry's SDK need not be there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aril.worker.tracing import JobTracing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aril.worker.observe.traces.recorder import JobSpan, Root, Told, Value


@dataclass
class ListedRoot:
    """One root, and what is below it."""

    root: Root
    below: list[Told] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # its times of ending: one, if all is well
    error: str | None = None

    @property
    def context(self) -> object:
        """Itself."""
        return self

    def add(self, span: Told) -> None:
        """Take a span; none comes after the end."""
        assert not self.ends
        self.below.append(span)

    def end(self, end_ns: int, attributes: Mapping[str, Value], *, error: str | None) -> None:
        """Take the end."""
        self.ends.append(end_ns)
        self.error = error
        assert attributes["aril.end"]


class SpanList:
    """A recorder that samples everything."""

    def __init__(self, worker: str = "w1") -> None:
        self.roots: list[ListedRoot] = []
        self.tracing = JobTracing(
            self, worker=worker, base="tiny", group="aril", dlq_topic="jobs.dlq"
        )

    def open(self, root: Root) -> JobSpan:
        """Begin a root."""
        self.roots.append(ListedRoot(root))
        return self.roots[-1]

    def step(self, span: Told, jobs: Sequence[JobSpan]) -> object:
        """Take a step."""
        return (span, jobs)

    async def close(self, seconds: float) -> None:
        """Keep everything."""

    def check(self) -> None:
        """See that every root has ended once, and that its spans lie in it one after the other."""
        assert not self.tracing._traces
        assert not self.tracing._open
        places = [(each.root.place, each.root.owner) for each in self.roots]
        assert len(set(places)) == len(places)
        for each in self.roots:
            (end,) = each.ends
            at = each.root.start_ns
            runs = [span for span in each.below if span.end_ns > span.start_ns]
            for span in runs:
                assert at <= span.start_ns <= span.end_ns <= end
                at = span.end_ns
