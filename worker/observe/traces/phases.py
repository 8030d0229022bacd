"""What a job goes through on one worker, one phase after the other. Pure: no clock."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


@enum.unique
class Phase(enum.Enum):
    """What a job is at. The value is its span's name, but for RUN, which is two."""

    QUEUE = "queue"
    PARK = "park"
    CLAIM = "claim"
    PREPARE = "prepare"
    WINDOW = "window"
    RUN = "run"
    DISPLACED = "displaced"
    ANSWER = "answer"
    PUT_ASIDE = "put aside"


# At these a job holds no place that others could use, so any number of jobs may be at them.
BEFORE_ITS_TURN: Final = frozenset({Phase.QUEUE, Phase.PARK, Phase.CLAIM})
PREFILL: Final = "prefill"
DECODE: Final = "decode"


class Interval(NamedTuple):
    """A phase that is over. Nanoseconds since the epoch."""

    phase: Phase
    start_ns: int
    end_ns: int


class Phases:
    """A job's phases. Each begins where the one before ended."""

    __slots__ = ("_phase", "_since_ns")

    def __init__(self, since_ns: int) -> None:
        self._phase: Phase | None = Phase.QUEUE
        self._since_ns = since_ns

    def enter(self, phase: Phase | None, now_ns: int) -> Interval | None:
        """Go on to a phase; return the one that is over with that, if one is.

        None is the end, or a stage that takes no time. A clock that was set back makes no time
        negative.
        """
        before, since_ns = self._phase, self._since_ns
        if phase is before:
            return None
        self._phase, self._since_ns = phase, max(since_ns, now_ns)
        return None if before is None else Interval(before, since_ns, self._since_ns)


class Piece(NamedTuple):
    """A part of a run, under its span's name."""

    name: str
    start_ns: int
    end_ns: int


def pieces(run: Interval, first_token_ns: int) -> Iterator[Piece]:
    """Split a run where its first token came: 0 if none did, before it where an earlier run had it.

    A job that gave its row away computes again what it had, and goes on in one piece.
    """
    start_ns, end_ns = run.start_ns, run.end_ns
    if not first_token_ns:
        yield Piece(PREFILL, start_ns, end_ns)
    elif first_token_ns <= start_ns:
        yield Piece(DECODE, start_ns, end_ns)
    else:
        middle_ns = min(first_token_ns, end_ns)
        yield Piece(PREFILL, start_ns, middle_ns)
        yield Piece(DECODE, middle_ns, end_ns)
