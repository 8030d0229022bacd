"""Where one answer is in its constraint: what may come next, and whether it is complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aril.schemas import ErrorCode, JobError

if TYPE_CHECKING:
    from collections.abc import Collection

    from llguidance import LLMatcher
    from numpy.typing import NDArray

_TOO_COMPLEX: Final = frozenset({"ParserTooComplex", "LexerTooComplex"})
_LEXER_FULL: Final = "too many states"  # it has no reason of its own for that
_DEAD_END: Final = frozenset({"NoExtension", "NoExtensionBias"})


@dataclass(slots=True)
class Wear:
    """What the answers under one constraint have made of the lexer that they share.

    Its states are added up over all of them and have one bound: once that is met, no answer goes
    on with it.
    """

    tokens: int = 0
    full: bool = False


class Matcher:
    """The state of one answer; a function of the tokens that it took, as long as there is room.

    `complete`: the answer is whole and nothing can follow. `error`: why it cannot go on.
    """

    __slots__ = (
        "_begun",
        "_dropped_blanks",
        "_engine",
        "_eos_ids",
        "_field",
        "_wear",
        "complete",
        "error",
    )

    def __init__(
        self,
        engine: LLMatcher,
        field: str,
        eos_ids: frozenset[int],
        dropped_blanks: NDArray[np.uint32] | None = None,
        wear: Wear | None = None,
    ) -> None:
        self._engine = engine
        self._field = field
        self._eos_ids = eos_ids
        self._dropped_blanks = dropped_blanks
        self._wear = Wear() if wear is None else wear
        self._begun = False
        self.complete = engine.is_stopped() and engine.is_accepting()
        self.error: JobError | None = None

    def goes_on(self) -> None:
        """Note that the answer goes on in a text: its first blank is shown as any other."""
        self._dropped_blanks = None

    def take(self, token: int) -> None:
        """Go on by one token that is no end of the answer. Raises JobError if it may not come."""
        self._begun = True
        self._wear.tokens += 1
        self._engine.consume_token(token)
        self._look()
        if self.error is not None:
            raise self.error

    def fill(self, mask: NDArray[np.uint32], end_ids: Collection[int]) -> None:
        """Write which tokens may come next into a row of bits, [words of 32 tokens].

        Tokens that end the answer may come exactly where it may end; an end-of-sequence token
        that does not end this one (`ignore_eos`) never. All bits are 0 where `error` is set. If
        the answer turns out to be `complete` here, any token that may come only ends it.
        """
        self._engine.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self._look()
        if self.error is not None:
            mask[:] = 0
            return
        if self.complete:  # an answer that allows end-of-sequence tokens alone
            return
        if not self._begun and self._dropped_blanks is not None:
            mask &= ~self._dropped_blanks
        may_end = self._engine.is_accepting()
        for token in self._eos_ids.union(end_ids):
            _set(mask, token, free=may_end and token in end_ids)
        if may_end and not mask.any():  # the engine finds late that nothing can follow
            self.complete = True
            for token in self._eos_ids:
                _set(mask, token, free=True)

    def _look(self) -> None:
        engine = self._engine
        if engine.is_error():
            full = _LEXER_FULL in engine.get_error()
            self._wear.full |= full
            self.error = self._why("LexerTooComplex" if full else engine.stop_reason())
        elif engine.is_stopped():
            self.complete = engine.is_accepting()
            if not self.complete:
                self.error = self._why(engine.stop_reason())

    def _why(self, reason: str) -> JobError:
        if reason in _TOO_COMPLEX:
            return JobError(
                ErrorCode.LIMIT_EXCEEDED,
                f"{self._field}: what may follow here takes too much to work out",
            )
        if reason in _DEAD_END:
            return JobError(
                ErrorCode.INVALID_JOB, f"{self._field}: a dead end, no token may follow here"
            )
        return JobError(ErrorCode.INTERNAL, f"{self._field}: the answer does not keep to it")


def _set(mask: NDArray[np.uint32], token: int, *, free: bool) -> None:
    bit = np.uint32(1 << (token & 31))
    if free:
        mask[token >> 5] |= bit
    else:
        mask[token >> 5] &= ~bit
