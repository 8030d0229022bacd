"""Where an answer is in its constraint depends on its tokens, and ends come where it may end."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from aril.schemas import ErrorCode, JobError, Sampling
from tests.support.constrained import FORMS, Form
from tests.support.tiny import make_tokenizer
from tests.worker.constraints.conftest import EXTRA

if TYPE_CHECKING:
    from aril.worker.constraints.compiler import CompiledConstraint, ConstraintCompiler
    from aril.worker.constraints.matcher import Matcher
    from aril.worker.constraints.vocabulary import Vocabulary

TOKENIZER = make_tokenizer()
EOS: int = TOKENIZER.eos_token_id
ENDS = frozenset({EOS})


def compiled(compiler: ConstraintCompiler, sampling: Sampling) -> CompiledConstraint:
    """Compile what a job asks for."""
    assert sampling.constraint is not None
    return compiler.compile(sampling.constraint)


def mask_of(matcher: Matcher, vocabulary: Vocabulary, ends: frozenset[int] = ENDS) -> set[int]:
    """Return the tokens that may come next."""
    words = np.full((vocabulary.size + 31) // 32, 0xFFFFFFFF, np.uint32)
    matcher.fill(words, ends)
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    return {*map(int, bits.nonzero()[0])}


def draw(matcher: Matcher, vocabulary: Vocabulary, seed: int, most: int = 40) -> list[int]:
    """Write an answer at random, up to its end or a number of tokens."""
    chance, ids = random.Random(seed), list[int]()
    while not matcher.complete and len(ids) < most:
        token = chance.choice(sorted(mask_of(matcher, vocabulary)))
        if token == EOS:
            break
        matcher.take(token)
        ids.append(token)
    return ids


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_matcher_is_a_function_of_its_tokens(
    form: Form, compiler: ConstraintCompiler, vocabulary: Vocabulary
) -> None:
    """Cut at every token: one that only took the tokens has the masks of one that went the way."""
    constraint = compiled(compiler, form.sampling())
    for seed in range(3):
        ids = draw(constraint.matcher(), vocabulary, seed)
        went = constraint.matcher()
        for cut, token in enumerate(ids):
            came = constraint.matcher()
            for each in ids[:cut]:
                came.take(each)
            assert mask_of(came, vocabulary) == mask_of(went, vocabulary)
            assert came.complete is went.complete is False
            went.take(token)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_whole_answers_validate_and_only_they_may_end(
    form: Form, compiler: ConstraintCompiler, vocabulary: Vocabulary
) -> None:
    """An end is let through exactly where other libraries find the text to be whole."""
    constraint = compiled(compiler, form.sampling())
    ended = 0
    for seed in range(12):
        matcher, ids, chance = constraint.matcher(), list[int](), random.Random(seed)
        while not matcher.complete and len(ids) < 60:
            allowed = mask_of(matcher, vocabulary)
            text = TOKENIZER.decode(ids)
            assert (EOS in allowed) == (form.fault(text) is None), text
            assert not allowed & {*range(len(TOKENIZER), len(TOKENIZER) + EXTRA)}
            allowed -= ENDS
            token = chance.choice(sorted(allowed)) if allowed else EOS
            if token == EOS:
                break
            matcher.take(token)
            ids.append(token)
        if matcher.complete:
            ended += 1
            assert form.fault(TOKENIZER.decode(ids)) is None
    assert ended or form.name in {"object", "tree", "regex"}


def test_an_end_that_does_not_end_this_answer_never_comes(
    compiler: ConstraintCompiler, vocabulary: Vocabulary
) -> None:
    """With `ignore_eos` the end-of-sequence token is masked, other ends are let through instead."""
    other = TOKENIZER.convert_tokens_to_ids("z")
    matcher = compiled(compiler, Sampling(regex="a+")).matcher()
    assert other not in mask_of(matcher, vocabulary, frozenset({other}))
    matcher.take(TOKENIZER.convert_tokens_to_ids("a"))
    assert EOS in mask_of(matcher, vocabulary)
    allowed = mask_of(matcher, vocabulary, frozenset({other}))
    assert EOS not in allowed
    assert other in allowed


def test_a_token_that_may_not_come_ends_it(
    compiler: ConstraintCompiler, vocabulary: Vocabulary
) -> None:
    """Resumed tokens of another constraint are an error, and after it nothing may come."""
    matcher = compiled(compiler, Sampling(choice=("yes", "no"))).matcher()
    with pytest.raises(JobError, match="choice: the answer does not keep to it"):
        matcher.take(TOKENIZER.convert_tokens_to_ids("x"))
    assert matcher.error is not None
    assert mask_of(matcher, vocabulary) == set()


def test_answers_of_one_constraint_do_not_meet(
    compiler: ConstraintCompiler, vocabulary: Vocabulary
) -> None:
    """Each answer has a state of its own."""
    constraint = compiled(compiler, Sampling(regex="(ab)+"))
    one, other = constraint.matcher(), constraint.matcher()
    before = mask_of(other, vocabulary)
    one.take(TOKENIZER.convert_tokens_to_ids("a"))
    assert mask_of(one, vocabulary) != before
    assert mask_of(other, vocabulary) == before


WIDE = r"(?s:.{0,400}a.{12}b.{0,400})"  # thousands of states an answer


def test_a_lexer_without_room_ends_answers_by_their_limit_and_no_later_ones(
    compiler: ConstraintCompiler, vocabulary: Vocabulary
) -> None:
    """Answers share it. One that it cannot go on with is told a limit, and it is worn out."""
    constraint = compiled(compiler, Sampling(regex=WIDE))
    assert not constraint.worn
    for seed in range(40):
        matcher = constraint.matcher()
        try:
            draw(matcher, vocabulary, seed, most=400)
        except (JobError, IndexError):  # IndexError: no token was left to choose
            break
    assert matcher.error is not None
    assert matcher.error.code is ErrorCode.LIMIT_EXCEEDED
    assert constraint.worn
    again = compiled(compiler, Sampling(regex=WIDE))
    assert draw(again.matcher(), vocabulary, 0, most=40)


def test_a_lexer_is_not_shared_for_ever(
    compiler: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made anew after a number of tokens, those of all answers together."""
    monkeypatch.setattr("aril.worker.constraints.compiler.MAX_TOKENS", 2)
    constraint = compiled(compiler, Sampling(choice=("ab",)))
    letter = TOKENIZER.convert_tokens_to_ids("a")
    for worn in (False, True):
        constraint.matcher().take(letter)
        assert constraint.worn is worn
