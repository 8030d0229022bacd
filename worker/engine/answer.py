"""When an answer ends, and its text up to there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.engine.stops import StopStrings
from worker.engine.text import Detokenizer, TextStream

if TYPE_CHECKING:
    from collections.abc import Collection

    from schemas import FinishReason, Sampling


class Answer:
    """One sequence's tokens as they are sampled: text, and the rules that end it.

    In this order: an end-of-sequence token (unless `ignore_eos`) or one of `stop_token_ids` ends
    the answer with "stop" and adds no text; so does a stop string, and the text ends before it; the
    `max_tokens`-th token ends it with "length", unless the text held back until then contains a
    stop string. All depends on the ids alone, so pushing an answer's visible tokens again gives
    the same state, and the same text piece for each token.
    """

    def __init__(
        self, detokenizer: Detokenizer, sampling: Sampling, eos_ids: Collection[int]
    ) -> None:
        self._stream = TextStream(detokenizer)
        self._stops = StopStrings(sampling.stop)
        self._end_ids = frozenset(sampling.stop_token_ids)
        if not sampling.ignore_eos:
            self._end_ids |= frozenset(eos_ids)
        self._left = sampling.max_tokens
        self.finish: FinishReason | None = None

    def push(self, token: int) -> str:
        """Take the next token; return what became safe to show, or with `finish` all the rest."""
        if self.finish is not None:
            raise ValueError("the answer has ended")
        self._left -= 1
        if token in self._end_ids:
            self.finish = "stop"
            return self._rest()
        text = self._stops.push(self._stream.push(token))
        if self._left == 0:
            text += self._rest()
            self.finish = "length"
        if self._stops.found:  # perhaps only in what was held back to the end
            self.finish = "stop"
        return text

    def _rest(self) -> str:
        text = self._stops.push(self._stream.flush())
        return text + self._stops.flush()
