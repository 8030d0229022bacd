"""Prompts: template, tokens, and the limits that a tenant is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from transformers import AutoTokenizer

from schemas import ErrorCode, Job, JobError, Message, Sampling
from tests.support.tiny import make_tiny_model
from worker.batching.prompts import Prompts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Load the tiny model's tokenizer."""
    folder: Path = make_tiny_model(tmp_path_factory.mktemp("prompts"))
    return AutoTokenizer.from_pretrained(folder)


def prompts(tokenizer: Any, **limits: Any) -> Prompts:
    """Make an encoder with some limits."""
    given = {"vocab_size": len(tokenizer), "context": 64, "max_prompt_tokens": 8_192} | limits
    return Prompts(tokenizer, **given)


def job(**fields: Any) -> Job:
    """Return a job with a short answer."""
    return Job(id="a", tenant="acme", **({"sampling": Sampling(max_tokens=4)} | fields))


def test_text_messages_and_ids(tokenizer: Any) -> None:
    """Text is tokenised, messages go through the chat template, ids are taken as they are."""
    encoder = prompts(tokenizer)
    assert (
        tokenizer.decode(encoder.encode(job(prompt="hello")), skip_special_tokens=True) == "hello"
    )
    ids = encoder.encode(job(messages=(Message(role="user", content="hi"),)))
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.decode(ids) == expected
    assert encoder.encode(job(token_ids=(1, 2, 3))) == (1, 2, 3)


@pytest.mark.parametrize(
    ("fields", "limits", "code", "limit", "given"),
    [
        ({"token_ids": (1,) * 9}, {"max_prompt_tokens": 8}, ErrorCode.PROMPT_TOO_LONG, 8, 9),
        ({"token_ids": (1,) * 64}, {}, ErrorCode.PROMPT_TOO_LONG, 63, 64),
        ({"token_ids": (1,) * 61}, {}, ErrorCode.LIMIT_EXCEEDED, 64, 65),
        ({"token_ids": (1, 10**6)}, {}, ErrorCode.INVALID_JOB, None, 10**6),
    ],
    ids=["service-limit", "no-room-for-an-answer", "answer-does-not-fit", "beyond-the-vocabulary"],
)
def test_a_limit_is_told_with_what_was_given(
    fields: dict[str, Any],
    limits: dict[str, Any],
    code: ErrorCode,
    limit: int | None,
    given: int,
    tokenizer: Any,
) -> None:
    """Each limit is a typed error with its number and the job's."""
    with pytest.raises(JobError) as caught:
        prompts(tokenizer, **limits).encode(job(**fields))
    assert (caught.value.code, caught.value.given) == (code, given)
    assert limit is None or caught.value.limit == limit


def test_a_prompt_without_tokens(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to go on from."""
    monkeypatch.setattr(tokenizer, "encode", lambda _text: [])
    with pytest.raises(JobError, match="no tokens") as caught:
        prompts(tokenizer).encode(job(prompt=" "))
    assert caught.value.code == ErrorCode.INVALID_JOB


def test_a_tokenizer_may_know_more_than_its_model(tokenizer: Any) -> None:
    """Text can name tokens that the backbone has no logits for: refused as ids are."""
    beyond = max(tokenizer.encode("hello"))
    with pytest.raises(JobError, match="prompt: beyond the vocabulary") as caught:
        prompts(tokenizer, vocab_size=beyond).encode(job(prompt="hello"))
    assert (caught.value.limit, caught.value.given) == (beyond - 1, beyond)


def test_messages_need_a_template(tokenizer: Any) -> None:
    """A backbone without a chat template says so, and a template's refusal is the tenant's."""
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        with pytest.raises(JobError, match="no chat template"):
            prompts(tokenizer).encode(job(messages=(Message(role="user", content="hi"),)))
        tokenizer.chat_template = "{{ raise_exception('no such role') }}"
        with pytest.raises(JobError, match="refuses them"):
            prompts(tokenizer).encode(job(messages=(Message(role="tool", content="hi"),)))
    finally:
        tokenizer.chat_template = template
