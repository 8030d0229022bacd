"""What one step computes: tokens of which sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aril.worker.engine.sequence import TokenSequence


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens `start` to `start + count` of one sequence; the last one is sampled from or not.

    `tells` are those of them, counted from `start`, whose logits tell how likely the prompt is.
    The last of them may be a `draft`, that is, guessed: then all of these are sampled from, and the
    token before them.
    """

    sequence: TokenSequence
    start: int
    count: int
    samples: bool
    tells: range = range(0)
    draft: tuple[int, ...] = ()

    @property
    def ids(self) -> list[int]:
        """Its tokens."""
        known = self.count - len(self.draft)
        return [*self.sequence.tokens(self.start, known), *self.draft]

    @property
    def stop(self) -> int:
        """The place behind its tokens."""
        return self.start + self.count

    @property
    def sampled(self) -> int:
        """How many of its last tokens are sampled from."""
        return self.samples + len(self.draft)

    def stands(self, sampled: int) -> int:
        """How many of its tokens are the sequence's own, once so many tokens came of it."""
        return self.count - len(self.draft) + (sampled - 1 if self.samples else 0)

    @property
    def bare(self) -> int:
        """How many of the tokens, from the first on, come before the adapter's work."""
        return max(0, min(self.count, self.sequence.active_from - self.start))

    @property
    def slots(self) -> tuple[int, ...]:
        """The adapter slots of the last token; none on the backbone."""
        return () if self.bare == self.count else self.sequence.slots


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: tokens of one (first) adapter slot are adjacent, as far as may be; slots ascend.

    Rows of the backbone come last. One that begins on the backbone and ends on an adapter comes
    before the adapter's others.
    """

    rows: tuple[Row, ...]
    tokens: int
    samples: int  # rows that end in a sampled token
    preempted: int  # sequences that lost their blocks to make room
