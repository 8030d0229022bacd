"""The reader rule: which records of a reply log count. A pure fold over one job's records.

Workers crash, wake up as zombies and have appends land late or twice. Nothing guards the log, yet
every reader of it sees the same answer, because each applies this rule in log order:

    state      epoch and writer of the current stream, the visible tokens, whether it has finished
    before     epoch (0, 0), no writer, no tokens
    finished   after a visible terminal no record counts
    lower      a record of a lower epoch is ignored
    release    changes nothing
    higher     a higher epoch begins only with a claim or with a record at index 0: its epoch and
               worker become current. A claim keeps what is visible. A record at index 0 while
               tokens are visible withdraws them all, told to the caller as a ResetEvent
    equal      only the worker that began the epoch counts. A tokens record counts if its index
               equals the number of visible tokens, else all of it is ignored; a terminal likewise

The rule is model-checked together with the workers' side of it; see docs/how-it-works.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aril.schemas.errors import ErrorCode
from aril.schemas.reply import (
    Activation,
    ClaimRecord,
    DoneRecord,
    Epoch,
    ErrorRecord,
    FinishReason,
    MixedAdapter,
    PromptLogprobs,
    ReleaseRecord,
    ReplyRecord,
    Timings,
    TokenLogprobs,
    TokensRecord,
    Usage,
)

BEFORE_ALL: Final = Epoch(0, 0)


@dataclass(frozen=True, slots=True)
class TokensEvent:
    """Tokens became visible, the first being the answer's `index`-th, and `text` with them."""

    index: int
    ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprobs, ...] | None = None


@dataclass(frozen=True, slots=True)
class ResetEvent:
    """All `withdrawn` visible tokens, and their text, are no longer part of the answer."""

    withdrawn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DoneEvent:
    """The answer is complete; `text` is the rest of it."""

    index: int
    text: str
    finish_reason: FinishReason
    usage: Usage
    adapter: str | None
    digest: str | None
    activation: Activation | None = None
    adapters: tuple[MixedAdapter, ...] = ()
    base: str
    base_digest: str | None = None
    earlier_bases: tuple[str, ...] = ()
    seed: int
    timings: Timings
    prompt_logprobs: PromptLogprobs | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEvent:
    """The job ended without a complete answer; what is visible stays visible."""

    index: int
    code: ErrorCode
    message: str
    retryable: bool
    limit: float | None = None
    given: float | str | None = None
    retry_after_ms: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


TerminalEvent = DoneEvent | ErrorEvent
Event = TokensEvent | ResetEvent | TerminalEvent
Snapshot = tuple[Epoch, str | None, tuple[int, ...], str, TerminalEvent | None, int]


class VisibleStream:
    """What a reader of one job's replies sees. Feed it that job's records in log order."""

    __slots__ = ("_ids", "_text", "epoch", "resets", "terminal", "writer")

    def __init__(self) -> None:
        self.epoch: Epoch = BEFORE_ALL
        self.writer: str | None = None
        self.terminal: TerminalEvent | None = None
        self.resets: int = 0
        self._ids: list[int] = []
        self._text: list[str] = []

    @property
    def count(self) -> int:
        """Number of visible tokens."""
        return len(self._ids)

    @property
    def token_ids(self) -> list[int]:
        """The visible tokens, copied."""
        return self._ids.copy()

    @property
    def text(self) -> str:
        """The visible text; once finished with `done`, the whole answer."""
        return "".join(self._text)

    @property
    def finished(self) -> bool:
        """Whether a terminal is visible."""
        return self.terminal is not None

    def feed(self, record: ReplyRecord) -> tuple[Event, ...]:
        """Apply the rule to the log's next record; return what it changed, often nothing."""
        if self.terminal is not None or record.epoch < self.epoch:
            return ()
        if isinstance(record, ReleaseRecord):
            return ()
        index = None if isinstance(record, ClaimRecord) else record.index
        reset: tuple[Event, ...] = ()
        if record.epoch > self.epoch:
            if index is not None and index != 0:
                return ()
            self.epoch, self.writer = record.epoch, record.worker
            if index == 0 and self._ids:
                reset = (self._withdraw(),)
        if isinstance(record, ClaimRecord):
            return ()
        if record.worker != self.writer or index != len(self._ids):
            return ()
        return (*reset, self._accept(record))

    def copy(self) -> "VisibleStream":
        """Return an independent stream in the same state."""
        twin = VisibleStream()
        twin.epoch, twin.writer = self.epoch, self.writer
        twin.terminal, twin.resets = self.terminal, self.resets
        twin._ids, twin._text = self._ids.copy(), self._text.copy()
        return twin

    def snapshot(self) -> Snapshot:
        """Return the whole state as a hashable value."""
        ids = tuple(self._ids)
        return self.epoch, self.writer, ids, self.text, self.terminal, self.resets

    def _withdraw(self) -> ResetEvent:
        withdrawn = len(self._ids)
        self._ids.clear()
        self._text.clear()
        self.resets += 1
        return ResetEvent(withdrawn)

    def _accept(self, record: TokensRecord | DoneRecord | ErrorRecord) -> Event:
        if isinstance(record, TokensRecord):
            self._ids.extend(record.ids)
            self._text.append(record.text)
            return TokensEvent(record.index, record.ids, record.text, record.logprobs)
        if isinstance(record, DoneRecord):
            self._text.append(record.text)
            self.terminal = _done_event(record)
        else:
            self.terminal = _error_event(record)
        return self.terminal


def _done_event(record: DoneRecord) -> DoneEvent:
    return DoneEvent(
        index=record.index,
        text=record.text,
        finish_reason=record.finish_reason,
        usage=record.usage,
        adapter=record.adapter,
        digest=record.digest,
        activation=record.activation,
        adapters=record.adapters,
        base=record.base,
        base_digest=record.base_digest,
        earlier_bases=record.earlier_bases,
        seed=record.seed,
        timings=record.timings,
        prompt_logprobs=record.prompt_logprobs,
        metadata=record.metadata,
    )


def _error_event(record: ErrorRecord) -> ErrorEvent:
    return ErrorEvent(
        index=record.index,
        code=record.code,
        message=record.message,
        retryable=record.retryable,
        limit=record.limit,
        given=record.given,
        retry_after_ms=record.retry_after_ms,
        metadata=record.metadata,
    )
