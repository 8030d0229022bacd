"""Prompts: template, tokens, and the limits that a tenant is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from transformers import AutoTokenizer

from aril.schemas import ErrorCode, Job, JobError, Message, Sampling
from aril.worker.batching.prompts import Prompts
from tests.support.tiny import make_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHO = {"id": "a", "tenant": "acme"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Load the tiny model's tokenizer."""
    folder: Path = make_tiny_model(tmp_path_factory.mktemp("prompts"))
    return AutoTokenizer.from_pretrained(folder)


def prompts(tokenizer: Any, **limits: Any) -> Prompts:
    """Make an encoder with some limits."""
    given = {
        "vocab_size": len(tokenizer),
        "context": 64,
        "max_prompt_tokens": 8_192,
        "max_new_tokens": 32,
    }
    given |= limits
    return Prompts(tokenizer, **given)


def job(**fields: Any) -> Job:
    """Return a job with a short answer."""
    return Job(id="a", tenant="acme", **({"sampling": Sampling(max_tokens=4)} | fields))


@pytest.mark.parametrize(("top", "most"), [(0, 32_769), (1, 10_923), (20, 800)])
def test_more_of_a_prompt_than_a_record_holds_is_refused(
    tokenizer: Any, top: int, most: int
) -> None:
    """The tenant is told how long a prompt may be with so many alternatives."""
    encoder = prompts(tokenizer, context=40_000, max_prompt_tokens=40_000)
    asked = Sampling(max_tokens=4, prompt_logprobs=top)
    assert len(encoder.encode(job(token_ids=(1,) * most, sampling=asked)).ids) == most
    with pytest.raises(JobError, match="prompt_logprobs: with") as caught:
        encoder.encode(job(token_ids=(1,) * (most + 1), sampling=asked))
    error = caught.value
    assert (error.code, error.limit, error.given) == (
        ErrorCode.LIMIT_EXCEEDED,
        most,
        most + 1,
    )


def test_text_messages_and_ids(tokenizer: Any) -> None:
    """Text is tokenised, messages go through the chat template, ids are taken as they are."""
    encoder = prompts(tokenizer)
    assert (
        tokenizer.decode(encoder.encode(job(prompt="hello")).ids, skip_special_tokens=True)
        == "hello"
    )
    ids = encoder.encode(job(messages=(Message(role="user", content="hi"),))).ids
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.decode(ids) == expected
    assert encoder.encode(job(token_ids=(1, 2, 3))) == ((1, 2, 3), 4)


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
    monkeypatch.setattr(tokenizer, "encode", lambda _text, **_: [])
    with pytest.raises(JobError, match="no tokens") as caught:
        prompts(tokenizer).encode(job(prompt=" "))
    assert caught.value.code == ErrorCode.INVALID_JOB


def test_a_tokenizer_may_know_more_than_its_model(tokenizer: Any) -> None:
    """Text can name tokens that the backbone has no logits for: refused as ids are."""
    beyond = max(tokenizer.encode("hello"))
    with pytest.raises(JobError, match="prompt: beyond the vocabulary") as caught:
        prompts(tokenizer, vocab_size=beyond).encode(job(prompt="hello"))
    assert (caught.value.limit, caught.value.given) == (beyond - 1, beyond)


@pytest.fixture
def templated(tokenizer: Any) -> Iterator[Callable[[str | None], Prompts]]:
    """Return what makes an encoder with another chat template."""
    before = tokenizer.chat_template

    def make(template: str | None) -> Prompts:
        tokenizer.chat_template = template
        return prompts(tokenizer, context=512)

    yield make
    tokenizer.chat_template = before


HI = (Message(role="user", content="hi"),)
Templated = Callable[[str | None], Prompts]


def refused(encoder: Prompts, **fields: Any) -> str:
    """Return why a conversation is refused as the tenant's mistake."""
    with pytest.raises(JobError) as caught:
        encoder.encode(job(**({"messages": HI} | fields)))
    assert caught.value.code == ErrorCode.INVALID_JOB
    return caught.value.message


def test_messages_need_a_template(templated: Templated) -> None:
    """A backbone without a chat template says so."""
    assert "no chat template" in refused(templated(None))


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('system turns\n go first') }}", "refuses them: system turns go first"),
        ("{{ messages[0].tool_calls | tojson }}", "TypeError"),
        ("{{ messages[0].content + loop.index }}", "'loop' is undefined"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('x' * 1000) }}", "x" * 200 + "…"),
    ],
)
def test_what_a_template_raises_is_told_in_its_words(
    templated: Templated, template: str, told: str
) -> None:
    """Whatever goes wrong in a template is a refusal of the job, in one short line."""
    message = refused(templated(template))
    assert told in message
    assert "\n" not in message


SHOWS = (
    "{% for m in messages %}[{{ m.role }}:{{ m.content }}"
    "{% if m.tool_calls is defined %} calls {{ m.tool_calls[0].function.name }}{% endif %}"
    "{% if m.name is defined %} of {{ m.name }}{% endif %}]{% endfor %}"
    "{% if tools %} tools {{ tools[0].function.name }}{% endif %}"
    "{% if mood is defined %} mood {{ mood }}{% endif %}"
    "{% if add_generation_prompt %} go{% endif %}"
)
CALL = {"type": "function", "function": {"name": "clock"}}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "[user:hi] go"),
        ({"add_generation_prompt": False}, "[user:hi]"),
        ({"chat_template_kwargs": {"mood": "calm"}}, "[user:hi] mood calm go"),
        ({"tools": [CALL]}, "[user:hi] tools clock go"),
        ({"continue_final_message": True}, "[user:hi"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [CALL]},
                    {"role": "tool", "content": "12:00", "name": "clock"},
                ]
            },
            "[assistant: calls clock][tool:12:00 of clock] go",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 2}]},
            "[user:a\na] go",
        ),
    ],
)
def test_a_template_is_told_all_that_a_job_says(
    templated: Templated, tokenizer: Any, fields: dict[str, Any], text: str
) -> None:
    """Tools, calls, parts, variables, and how the conversation goes on."""
    encoder = templated(SHOWS)
    ids = encoder.encode(Job.model_validate({**WHO, "messages": HI, **fields}, strict=False)).ids
    assert tokenizer.decode(ids) == text


def test_a_calls_arguments_are_a_map(templated: Templated, tokenizer: Any) -> None:
    """OpenAI's interface has them as text; what is no map in it stays as it is."""
    encoder = templated(
        "{% for c in messages[0].tool_calls %}{{ c.function.arguments | tojson }};{% endfor %}"
    )
    given = ('{"city": "Paris"}', {"city": "Rome"}, "[1]", "{", 7)
    calls = [{"function": {"name": "f", "arguments": each}} for each in given]
    turn = {"role": "assistant", "tool_calls": calls}
    ids = encoder.encode(Job.model_validate({**WHO, "messages": [turn]}, strict=False)).ids
    assert tokenizer.decode(ids) == '{"city": "Paris"};{"city": "Rome"};"[1]";"{";7;'


def test_an_effort_is_refused_by_a_template_without_it(
    templated: Templated, tokenizer: Any
) -> None:
    """Else the answer would be as hard thought about as any, and nobody would know."""
    low = {"reasoning_effort": "low"}
    told = refused(templated(SHOWS), chat_template_kwargs=low)
    assert told == "chat_template_kwargs: the chat template knows no reasoning_effort"
    encoder = templated("{{ reasoning_effort | default('high') }}")
    ids = encoder.encode(job(messages=HI, chat_template_kwargs=low)).ids
    assert tokenizer.decode(ids) == "low"


@pytest.mark.parametrize(
    "name", ["chat_template", "tokenize", "messages", "tools", "max_length", "eos_token"]
)
def test_no_job_brings_a_template_of_its_own(templated: Templated, name: str) -> None:
    """Variables that would be arguments of the tokenizer are refused by name."""
    told = refused(templated(SHOWS), chat_template_kwargs={name: "{{ 1 }}"})
    assert told == f"chat_template_kwargs: {name} is not for jobs to set"


@pytest.mark.parametrize(
    ("sampling", "longest"),
    [(Sampling(), 32), (Sampling(max_tokens=4), 4), (Sampling(min_tokens=9), 32)],
)
def test_an_answer_without_a_bound_gets_what_there_is(
    tokenizer: Any, sampling: Sampling, longest: int
) -> None:
    """The context's rest, or the most that the service allows where that is less."""
    encoder = prompts(tokenizer)
    given = job(token_ids=(1,) * 3, sampling=sampling)
    assert encoder.encode(given).answer_tokens == longest
    rest = job(token_ids=(1,) * 60, sampling=Sampling())
    assert encoder.encode(rest).answer_tokens == 4


def test_a_template_may_not_write_without_end(templated: Templated) -> None:
    """What it makes of a small record is counted before it is tokenised."""
    encoder = templated("{% for i in range(1000) %}{{ messages[0].content * 1000 }}{% endfor %}")
    with pytest.raises(JobError) as caught:
        encoder.encode(job(messages=HI))
    assert (caught.value.code, caught.value.limit) == (ErrorCode.PROMPT_TOO_LONG, 500_000)
    assert caught.value.given == 2_000_000


def test_what_has_to_come_must_fit(tokenizer: Any) -> None:
    """As many tokens as the answer must have are too many as they are as a bound."""
    with pytest.raises(JobError) as caught:
        prompts(tokenizer).encode(job(token_ids=(1,) * 60, sampling=Sampling(min_tokens=5)))
    assert (caught.value.code, caught.value.given) == (ErrorCode.LIMIT_EXCEEDED, 65)


def test_a_bias_names_tokens_of_the_vocabulary(tokenizer: Any) -> None:
    """Others have no logit that could be shifted."""
    size = len(tokenizer)
    with pytest.raises(JobError, match="logit_bias: beyond the vocabulary") as caught:
        prompts(tokenizer).encode(job(prompt="a", sampling=Sampling(logit_bias={str(size): 1.0})))
    assert (caught.value.limit, caught.value.given) == (size - 1, size)
