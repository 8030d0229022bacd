"""What was seen of a run with faults, on one clock: by clients, in the logs, by readers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from aril.schemas import Activation, MixedAdapter, VisibleStream
from aril.worker.adapters.invocation import find_last
from tests.support.fault_content import (
    INVOCATIONS,
    digest_of,
    prompt_of,
    text_of,
    tokens_of,
    voice_of,
)
from tests.support.fault_forms import WholeAnswer, whole_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.schemas import Event, ReplyRecord


class Name(NamedTuple):
    """A job's identity: tenants may use the same ids."""

    tenant: str
    job: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.job}"


# `info`: it was left running, and nobody knows its end; `lost`: retention overtook its reader.
Outcome = Literal["ok", "info", "lost"]
Kind = Literal["job", "cancel", "broken", "unreadable"]
DONE = "done"


@dataclass(frozen=True, slots=True)
class Asked:
    """A job that a client sent. `ends` are the ends that are right: "done", or error codes."""

    name: Name
    tokens: int
    outcome: Outcome = "ok"
    adapter: str | None = None
    scale: float = 1.0
    mixture: tuple[tuple[str, float], ...] = ()  # names and weights, in place of an adapter
    ends: frozenset[str] = frozenset({DONE})
    deadline_ms: int | None = None
    codec: str | None = None  # that its record was packed with
    form: str | None = None  # that its answer is held to

    @property
    def length(self) -> int:
        """How many tokens its whole answer has."""
        return self.tokens if self._held is None else len(self._held.ids)

    @property
    def text(self) -> str:
        """The whole answer's."""
        if self._held is not None:
            return self._held.text
        return text_of(*self.name, 0, self.tokens, self.voice)

    def ids(self, start: int, stop: int) -> tuple[int, ...]:
        """Return a range of the whole answer's tokens."""
        if self._held is not None:
            return self._held.ids[start:stop]
        return tokens_of(*self.name, start, stop, self.voice)

    @property
    def _held(self) -> WholeAnswer | None:
        if self.form is None or DONE not in self.ends:
            return None
        return whole_answer(*self.name, self.voice, self.form, self.tokens)

    @property
    def digest(self) -> str | None:
        """Of the adapter that its answer has to come from, as its end tells."""
        return None if self.adapter is None else digest_of(self.name.tenant, self.adapter)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of all adapters that it needs."""
        return tuple(name for name, _ in self._shares)

    @property
    def told(self) -> tuple[MixedAdapter, ...]:
        """What its end says of a mixture."""
        tenant = self.name.tenant
        return tuple(
            MixedAdapter(name, digest_of(tenant, name), weight) for name, weight in self.mixture
        )

    @property
    def activation(self) -> Activation | None:
        """What its end says of where the adapter worked."""
        if self.adapter not in INVOCATIONS:
            return None
        return Activation(find_last(prompt_of(*self.name), INVOCATIONS[self.adapter]))

    @property
    def voice(self) -> str | None:
        """What its content has to tell of its adapters."""
        start = 0 if self.activation is None else self.activation.start
        if start is None:
            return None
        digests = [digest_of(self.name.tenant, name) for name in self.adapters]
        return voice_of(digests, [self.scale * weight for _, weight in self._shares], start)

    @property
    def _shares(self) -> tuple[tuple[str, float], ...]:
        return self.mixture if self.adapter is None else ((self.adapter, 1.0),)


@dataclass(frozen=True, slots=True)
class Logged:
    """A record as it stands in a tenant's reply topic, whoever it is for."""

    tenant: str  # whose topic it is
    partition: int
    offset: int
    at_ms: int  # log-append time
    key: bytes | None
    record: ReplyRecord


@dataclass(frozen=True, slots=True)
class Input:
    """A record of the jobs topic; without a name it is poison that nobody can be told of.

    A `broken` one is no job, but says whose it wants to be: it is answered and put aside. What is
    `unreadable` was appended byte by byte: one letter tells of all of a batch, which has a span.
    """

    partition: int
    offset: int
    name: Name | None
    at_ms: int = 0
    kind: Kind = "job"
    span: int = 1  # how many offsets


@dataclass(frozen=True, slots=True)
class Committed:
    """What the group's offsets said of a partition at a moment."""

    at_ms: int
    partition: int
    position: int
    done: tuple[range, ...] = ()


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter: which input record it is of."""

    partition: int
    offset: int
    at_ms: int


class Trim(NamedTuple):
    """All records of a reply partition below an offset were deleted, while no worker lived."""

    tenant: str
    partition: int
    offset: int


class Outage(NamedTuple):
    """Something that one tenant needs, or needs for one adapter, was not to be had for a while.

    Its jobs may wait for that. Where the store was `ill` those that need the adapter may end in
    `internal`. What all other tenants sent before the moment at which it was `settled`, they had
    answers to before its end.
    """

    begun_ms: int
    settled_ms: int
    ended_ms: int
    tenant: str
    adapter: str | None = None  # whose weights; None: the tenant's reply topic
    ill: bool = False


class Step(NamedTuple):
    """A log record that changed what readers see, and how."""

    logged: Logged
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """A job's log as a late reader sees it."""

    stream: VisibleStream
    steps: tuple[Step, ...]

    @property
    def events(self) -> tuple[Event, ...]:
        """What a late reader is given."""
        return tuple(event for step in self.steps for event in step.events)

    @property
    def ended_ms(self) -> int | None:
        """When the visible terminal was appended."""
        return self.steps[-1].logged.at_ms if self.stream.finished else None


@dataclass(frozen=True, slots=True)
class History:
    """All of it. `zombies`: workers were halted past their time-out, so resets are possible.

    `log` holds what was deleted, too. `withdrawn` are jobs whose readers must have been told so.
    """

    asked: Sequence[Asked]
    log: Sequence[Logged]
    live: Sequence[tuple[Name, tuple[Event, ...]]]  # once for every reader of a job
    inputs: Sequence[Input] = ()
    committed: Sequence[Committed] = ()
    dead: Sequence[Dead] = ()
    zombies: bool = False
    generations_restarted: bool = False
    unfinished: Sequence[Name] = ()  # waited for in vain, faults healed
    trims: Sequence[Trim] = ()
    withdrawn: Sequence[Name] = ()
    reply_partitions: int = 1
    clocks_off: Sequence[tuple[int, int]] = ()  # from, to: a worker's clock was not the broker's
    outages: Sequence[Outage] = ()

    @property
    def by_job(self) -> dict[Name, list[Logged]]:
        """The log by job, in log order."""
        found: dict[Name, list[Logged]] = defaultdict(list)
        for each in self.log:
            found[Name(each.tenant, each.record.job)].append(each)
        return found


def fold(log: Sequence[Logged]) -> Folded:
    """Read one job's records by the reader rule."""
    stream = VisibleStream()
    steps = [Step(each, stream.feed(each.record)) for each in log]
    return Folded(stream, tuple(step for step in steps if step.events))
