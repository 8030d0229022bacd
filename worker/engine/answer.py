"""When an answer ends, and its text up to there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.engine.stops import StopStrings
from aril.worker.engine.text import Detokenizer, TextStream

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aril.schemas import FinishReason, Sampling
    from aril.worker.constraints.matcher import Matcher


class Answer:
    """One sequence's tokens as they are sampled: text, and the rules that end it.

    In this order: one of `end_ids` ends it with "stop" and adds no text (end-of-sequence tokens
    unless `ignore_eos`, `stop_token_ids`, stop strings that are special tokens); so does a stop
    string, and the text ends before it; the `max_tokens`-th token ends it with "length", unless the
    text held back until then contains a stop string. The sampler lets none of `end_ids` come among
    the first `min_tokens`, and stop strings are looked for in what follows these. A constraint that
    is complete ends it with "stop" before all else. All depends on the ids alone, so pushing an
    answer's visible tokens again gives the same state, and the same text piece for each token.
    `prompt_ids` are those of a prompt whose text the answer goes on in.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        sampling: Sampling,
        eos_ids: Collection[int],
        matcher: Matcher | None = None,
        prompt_ids: Sequence[int] = (),
    ) -> None:
        context = detokenizer.context(prompt_ids)
        self._stream = TextStream(detokenizer, context)
        if matcher is not None and context:
            matcher.goes_on()
        # A special token has no text of its own: where it is asked for, it is looked for by id.
        special = {stop: detokenizer.special(stop) for stop in sampling.stop}
        self._stops = StopStrings(stop for stop, token in special.items() if token is None)
        self._unbounded = sampling.min_tokens
        self.end_ids = frozenset(sampling.stop_token_ids)
        self.end_ids |= {token for token in special.values() if token is not None}
        if not sampling.ignore_eos:
            self.end_ids |= frozenset(eos_ids)
        self._left = sampling.longest
        self.matcher = matcher
        self.finish: FinishReason | None = None

    def push(self, token: int) -> str:
        """Take the next token; return what became safe to show, or with `finish` all the rest.

        Raises JobError for a token that the constraint does not let through.
        """
        if self.finish is not None:
            raise ValueError("the answer has ended")
        self._left -= 1
        self._unbounded -= 1
        matcher = self.matcher
        if token in self.end_ids or (matcher is not None and matcher.complete):
            self.finish = "stop"
            return self._rest()
        if matcher is not None:
            matcher.take(token)
        complete = matcher is not None and matcher.complete
        text = self._stream.push(token)
        if self._unbounded < 0:
            text = self._stops.push(text)
        if self._left == 0 or complete:
            text += self._rest()
            self.finish = "length"
        if self._stops.found or complete:  # perhaps only in what was held back to the end
            self.finish = "stop"
        return text

    def _rest(self) -> str:
        text = self._stream.flush()
        if self._unbounded < 0:
            text = self._stops.push(text)
        return text + self._stops.flush()
