"""What the tests of constraints share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aril.worker.constraints.compiler import ConstraintCompiler
from aril.worker.constraints.vocabulary import Vocabulary
from tests.support.tiny import make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTRA = 5  # logits beyond the tokenizer


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """Take the tiny tokenizer, with logits that are wider."""
    tokenizer = make_tokenizer()
    eos_ids = frozenset({tokenizer.eos_token_id, tokenizer.pad_token_id})
    return Vocabulary.of(tokenizer, len(tokenizer) + EXTRA, eos_ids)


@pytest.fixture(scope="session")
def compiler(vocabulary: Vocabulary) -> Iterator[ConstraintCompiler]:
    """One compiler, with its process, for all tests."""
    made = ConstraintCompiler(vocabulary)
    yield made
    made.close()
