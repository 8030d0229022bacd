"""The engine behind constrained answers: llguidance, with our options and bounds.

Imports nothing but that: the process that tries a constraint first
(`aril.worker.constraints.trial`) starts in a moment. Which engine, and why:
docs/decisions/048-constrained-answers.md.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

# Per step of one row, in the engine's units: about 7 ms of its lexer and 1 ms of its parser.
STEP_LIMITS: Final[dict[str, Any]] = {"step_lexer_fuel": 100_000, "step_max_items": 20_000}
MAX_LEXER_STATES: Final = 16_384
"""Of one answer; each is 1 to 2 kB."""

_JSON_OPTIONS: Final[Any] = {
    # Blanks between two parts of an answer have a bound, or a model might write no end of them.
    "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,64}",
    # No \uXXXX: an escaped key could repeat one of `properties` and stand for another value.
    "json_allowed_escapes": 'nrbtf\\"',
    "item_separator": ",",
    "key_separator": ":",
    "lenient": False,
    "coerce_one_of": False,
    "json_allow_general_unicode_escapes": False,
}
_EMPTY: Final = "no text is such an answer"
_STOPS: Final = re.compile(r"^(NoExtension\w*|NotStopped)\s*$", re.MULTILINE)


class GrammarError(ValueError):
    """It cannot be compiled; the message says why, in the engine's words."""


def make_tokenizer(tokenizer_json: str, vocab: int, eos_ids: list[int]) -> LLTokenizer:
    """Return the vocabulary as the engine keeps it; raises ValueError for one it cannot read."""
    return LLTokenizer(tokenizer_json, n_vocab=vocab, eos_token=eos_ids)


def to_grammar(kind: str, text: str) -> str:
    """Return a constraint in the engine's own form. Raises GrammarError."""
    if kind == "json_schema":
        try:
            return LLMatcher.grammar_from_json_schema(text, overrides=_JSON_OPTIONS)
        except ValueError as error:
            raise GrammarError(str(error)) from None
    if kind == "regex":
        return LLMatcher.grammar_from_regex(text)
    if kind == "choice":  # texts are written in Lark as they are in JSON
        return LLMatcher.grammar_from_lark(
            f"start: {' | '.join(map(json.dumps, json.loads(text)))}"
        )
    return LLMatcher.grammar_from_lark(text)


def compile_grammar(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    """Return a matcher at the beginning of an answer, its first mask made. Raises GrammarError."""
    limits = LLParserLimits(**STEP_LIMITS, max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if not matcher.is_error():
        matcher.compute_bitmask()  # what every answer begins with is worked out once
    if matcher.is_error():
        words = _STOPS.sub(_EMPTY, matcher.get_error().replace("<non-verbose/>", ""))
        raise GrammarError(words)
    if matcher.is_stopped() and not matcher.is_accepting():
        raise GrammarError(_EMPTY)
    return matcher
