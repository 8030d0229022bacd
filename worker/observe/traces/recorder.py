"""What is asked of whoever keeps spans: OpenTelemetry's SDK (`otel`), or a list in a test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aril.worker.observe.traces.identity import Owner, Place

Value = str | int | float | bool | tuple[str, ...]
# OpenTelemetry's kinds: a message is processed, something of ours is done, a record is sent.
Kind = Literal["consumer", "internal", "client"]


class TracesError(Exception):
    """Traces cannot be sent as asked; the message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One span, whole."""

    name: str
    start_ns: int
    end_ns: int
    kind: Kind = "internal"
    attributes: Mapping[str, Value] = field(default_factory=dict)
    steps: Sequence[object] = ()  # contexts of steps' spans that it is linked to


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The span that stands for all that one owner does for a job, as it begins."""

    name: str
    start_ns: int
    headers: Sequence[tuple[str, bytes | None]]  # of the job's record
    place: Place
    digest: bytes  # of what the job asks
    owner: Owner
    taken_from: Owner | None  # who wrote the job's answer before
    attributes: Mapping[str, Value]


class JobSpan(Protocol):
    """A root that is under way."""

    @property
    def context(self) -> object:
        """What a link to it needs."""

    def add(self, span: Told) -> None:
        """Put a span below it."""

    def end(self, end_ns: int, attributes: Mapping[str, Value], *, error: str | None) -> None:
        """End it, with the error code of a job that failed."""


class Recorder(Protocol):
    """Keeps spans, or sends them away. Belongs to the event loop; nothing here waits."""

    def open(self, root: Root) -> JobSpan | None:
        """Begin a job's root; None where its trace is not sampled."""

    def step(self, span: Told, jobs: Sequence[JobSpan]) -> object | None:
        """Tell of a step that jobs took part in; return its context, None if it is not sampled."""

    async def close(self, seconds: float) -> None:
        """Send what is left, for so long at most."""
