"""Constrained answers of the stand-in engine: drawn by tenant, job and index, held to real masks.

Matcher, end rules and text pieces are the worker's own, over a vocabulary of one token a byte, so a
take-over has to rebuild where the answer was, in the middle of a character too. Whether a whole
answer has its form is for `Form.fault` to say, which knows nothing of masks.
"""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from aril.worker.constraints.compiler import CompiledConstraint
from aril.worker.constraints.grammar import compile_grammar, to_grammar
from aril.worker.constraints.vocabulary import Vocabulary
from aril.worker.engine.answer import Answer
from aril.worker.engine.text import Detokenizer
from tests.support.constrained import FORMS, Form

if TYPE_CHECKING:
    from aril.schemas import FinishReason, Sampling

BY_FORM = {form.name: form for form in FORMS}
NO_FORM = Form("no_form", {"regex": "("})  # refused
END = "<|end|>"
TOKENS = 160  # at most
# One in so many ends where it may, and prefers what closes something: else none would be whole.
SOON = 2
CLOSING = frozenset(b'"]}')


class WholeAnswer(NamedTuple):
    """An answer that nothing disturbs."""

    ids: tuple[int, ...]
    text: str
    finish: FinishReason


@cache
def tokenizer() -> Tokenizer:
    """Return one token a byte, and an end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(END, special=True)])
    return made


@cache
def vocabulary() -> Vocabulary:
    """Return it for constraints."""
    made = tokenizer()
    end = made.token_to_id(END)
    assert end is not None
    return Vocabulary(made.to_str(), end + 1, frozenset({end}))


@cache
def _closing() -> frozenset[int]:
    found = (tokenizer().token_to_id(chr(byte)) for byte in CLOSING)
    return frozenset(token for token in found if token is not None)


def begin(constraint: CompiledConstraint, sampling: Sampling) -> Answer:
    """Begin an answer by the worker's rules."""
    return Answer(Detokenizer(tokenizer()), sampling, vocabulary().eos_ids, constraint.matcher())


def next_token(tenant: str, job: str, index: int, voice: str | None, answer: Answer) -> int:
    """Draw the token at an index, from what the answer's constraint lets through."""
    matcher = answer.matcher
    assert matcher is not None
    mask = np.zeros((vocabulary().size + 31) // 32, np.uint32)
    matcher.fill(mask, answer.end_ids)
    if matcher.error is not None:
        raise matcher.error
    allowed = np.unpackbits(mask.view(np.uint8), bitorder="little").nonzero()[0].tolist()
    told = f"{tenant}/{job}/{index}/{voice or ''}"
    drawn = int.from_bytes(hashlib.blake2b(told.encode(), digest_size=8).digest())
    for wanted in (vocabulary().eos_ids, _closing()):
        if soon := [token for token in allowed if token in wanted]:
            drawn, chosen = divmod(drawn, SOON)
            if not chosen:
                return soon[drawn % len(soon)]
    return allowed[drawn % len(allowed)]


@lru_cache(maxsize=100_000)
def whole_answer(
    tenant: str, job: str, voice: str | None, form: str, max_tokens: int
) -> WholeAnswer:
    """Return the answer to a constrained job, as it would be without a fault."""
    answer = begin(_compiled(form), BY_FORM[form].sampling(max_tokens=max_tokens))
    ids: list[int] = []
    text = ""
    while answer.finish is None:
        ids.append(next_token(tenant, job, len(ids), voice, answer))
        text += answer.push(ids[-1])
    return WholeAnswer(tuple(ids), text, answer.finish)


@cache
def _compiled(form: str) -> CompiledConstraint:
    constraint = BY_FORM[form].sampling().constraint
    assert constraint is not None
    kind, text, field = constraint
    engine = compile_grammar(vocabulary().engine, to_grammar(kind, text))
    return CompiledConstraint(engine, field, vocabulary())
