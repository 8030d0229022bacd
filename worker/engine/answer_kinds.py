"""Earlier answers of a kind, which later ones are guessed from.

What an adapter was trained for mostly has a form: the same fields, phrases and ends, answer by
answer. A job's own tokens cannot tell of it, answers to earlier ones do. A kind is who asked (those
who find each other's beginnings in the cache, and nobody else), what answered, and whether tokens
are drawn: what is drawn is guessed less well.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from aril.worker.engine.hit_rates import HitRates
from aril.worker.engine.ngrams import NgramIndex

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

KINDS: Final = 32  # that are known, the latest
TOKENS: Final = 4_096  # of a kind's answers, the latest; less than 200 bytes each


class AnswerKind:
    """The latest answers of one kind, and how often guesses of them came true."""

    __slots__ = ("index", "rates")

    def __init__(self) -> None:
        self.index = NgramIndex()
        self.rates = HitRates()

    def add(self, ids: Sequence[int]) -> None:
        """Take an answer in, or the end of it; the older half is dropped where it is too much."""
        ids = ids[-(TOKENS // 2) :]
        if len(self.index) + len(ids) > TOKENS:
            kept = self.index.latest(TOKENS // 2)
            self.index = NgramIndex()
            self.index.extend(kept)
        self.index.extend(ids)


class AnswerKinds:
    """The kinds that answers were asked of last."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, AnswerKind] = OrderedDict()

    def __len__(self) -> int:
        """Kinds that are known."""
        return len(self._kinds)

    def of(self, key: Hashable) -> AnswerKind:
        """Return a kind, which is a new one where it is not known, or no more."""
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = AnswerKind()
            if len(self._kinds) > KINDS:
                self._kinds.popitem(last=False)
        self._kinds.move_to_end(key)
        return kind
