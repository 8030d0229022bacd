"""Tokens that only an adapter knows: text is cut as the adapter's own tokenizer cuts it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from aril.schemas import ErrorCode, JobError
from aril.worker.batching.added_tokens import AddedTokens
from tests.support.tiny import make_tokenizer

ADDED = ("<tool>", "<tool>s", "[END OF IT]", "ß")
TEXTS = (
    "",
    "no token of its own",
    "<tool>",
    "<tool>s are <tool> and<tool>",
    " <tool>  then <|im_end|> and <|im_start|><tool>",
    "[END OF IT][END OF IT] [END OF I <|im_end|>",
    "Stra\u00dfe 東京 <tool>🙂",
)


def byte_level() -> Any:
    """Return a tokenizer such as Llama 3's, which puts a token before each text."""
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    return tokenizer


def metaspace() -> Any:
    """Return a tokenizer such as Mistral's: a space before the first word, and no other."""
    pieces = {"<unk>": 0, "<s>": 1} | {
        piece: at for at, piece in enumerate(sorted({*"".join(TEXTS), "▁"}), start=2)
    }
    inner = Tokenizer(models.BPE(pieces, [], unk_token="<unk>"))  # noqa: S106  # no password
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",  # noqa: S106  # no password
        unk_token="<unk>",  # noqa: S106  # same
    )


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("kind", [byte_level, metaspace])
def test_text_is_cut_as_by_a_tokenizer_that_knows_them(kind: Any, special: bool) -> None:
    """Also where the backbone's own tokens stand beside them, or begin the text."""
    base = kind()
    theirs = copy.deepcopy(base)
    theirs.add_tokens(list(ADDED), special_tokens=True)
    added = {token: theirs.convert_tokens_to_ids(token) for token in ADDED}
    assert len(set(added.values()) - set(base.get_vocab().values())) >= len(ADDED) - 1
    encoder = AddedTokens(base)
    for text in TEXTS:
        expected = theirs.encode(text, add_special_tokens=special)
        assert list(encoder.encode(text, added, special=special)) == expected, text
        plain = base.encode(text, add_special_tokens=special)
        assert list(encoder.encode(text, {}, special=special)) == plain


def test_a_tokenizer_without_tokens_of_its_own_cannot() -> None:
    """Told to the tenant, and only where such a token is in the text."""
    inner = Tokenizer(models.BPE({"a": 0}, []))
    encoder = AddedTokens(PreTrainedTokenizerFast(tokenizer_object=inner))
    assert encoder.encode("aa", {"<tool>": 7}, special=False) == (0, 0)
    with pytest.raises(JobError, match="send token_ids") as caught:
        encoder.encode("a<tool>", {"<tool>": 7}, special=False)
    assert caught.value.code is ErrorCode.INVALID_JOB
