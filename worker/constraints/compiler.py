"""From a job's constraint to what answers are held to; slow, so it runs in a thread of its own."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from aril.schemas import ErrorCode, JobError
from aril.worker.constraints.grammar import GrammarError, compile_grammar, to_grammar
from aril.worker.constraints.matcher import Matcher, Wear
from aril.worker.constraints.schema_text import checked_schema
from aril.worker.constraints.trial_process import (
    TOO_MUCH,
    TrialProcess,
    UnreadableVocabularyError,
)
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from aril.schemas.constraint import Constraint
    from aril.worker.constraints.vocabulary import Vocabulary

log = get_logger(__name__)

WORDS_CHARS: Final = 200
"""Of the engine's own words that a tenant is told."""
_NOT_HERE: Final = "answers of this backbone cannot be constrained"


MAX_TOKENS: Final = 8_192
"""Of answers that share a lexer: it is made anew while there is room in it for those that run."""


class CompiledConstraint:
    """What every answer under one constraint begins from."""

    def __init__(self, engine: LLMatcher, field: str, vocabulary: Vocabulary) -> None:
        self.vocab_size = vocabulary.size
        self._engine = engine
        self._field = field
        self._eos_ids = vocabulary.eos_ids
        self._dropped_blanks = vocabulary.dropped_blanks
        self._wear = Wear()

    @property
    def worn(self) -> bool:
        """Whether the next answers are to begin from another, compiled again; from any thread."""
        return self._wear.full or self._wear.tokens >= MAX_TOKENS

    def matcher(self) -> Matcher:
        """Begin an answer: a copy, nothing is compiled."""
        engine = self._engine.deep_copy()
        return Matcher(engine, self._field, self._eos_ids, self._dropped_blanks, self._wear)


class ConstraintCompiler:
    """Compiles constraints for one backbone; used by one thread, but for `close`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._trial = TrialProcess(vocabulary)

    def digest(self, constraint: Constraint) -> bytes:
        """Return what tells two constraints apart; a message names the field, so that counts."""
        told = "\0".join(constraint).encode(errors="surrogatepass")
        return hashlib.blake2b(told, digest_size=16).digest()

    def compile(self, constraint: Constraint) -> CompiledConstraint:
        """Compile one. Raises JobError, with the reason, for what cannot be kept to.

        OSError and TrialClosedError: it could not be tried, see `TrialProcess.refusal`.
        """
        kind, text, field = constraint
        if kind == "json_schema":
            text = checked_schema(text, field)
        try:
            refusal = self._trial.refusal(kind, text)
        except UnreadableVocabularyError:
            log.exception("constraints_not_served")
            raise JobError(ErrorCode.INVALID_JOB, f"{field}: {_NOT_HERE}") from None
        if refusal is not None:
            raise _refused(field, refusal)
        try:
            engine = compile_grammar(self._vocabulary.engine, to_grammar(kind, text))
        except GrammarError as error:
            raise _refused(field, str(error)) from None
        return CompiledConstraint(engine, field, self._vocabulary)

    def close(self) -> None:
        """End the process that tries constraints; from any thread."""
        self._trial.close()


def _refused(field: str, reason: str) -> JobError:
    words = " ".join(reason.split())
    if len(words) > WORDS_CHARS:
        words = f"{words[:WORDS_CHARS]}…"
    code = ErrorCode.LIMIT_EXCEEDED if reason == TOO_MUCH else ErrorCode.INVALID_JOB
    return JobError(code, f"{field}: {words}")
