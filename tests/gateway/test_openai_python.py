"""OpenAI's own client in Python against a real worker behind a real gateway."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.gateway_stand import KEY, SLOW_KEY

openai = pytest.importorskip("openai")

if TYPE_CHECKING:
    from tests.support.gateway_stand import Stand

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

MESSAGES: Any = [{"role": "user", "content": "what is the capital of France?"}]
EXACT: dict[str, Any] = {"model": "aril", "messages": MESSAGES, "temperature": 0}
LONG: dict[str, Any] = {
    "model": "aril",
    "messages": MESSAGES,
    "max_tokens": 400,
    "extra_body": {"ignore_eos": True},
}


@pytest.fixture
def client(stand: Stand) -> Any:
    """Return the client as its users make it."""
    with openai.OpenAI(base_url=f"{stand.url}/v1", api_key=KEY, timeout=120) as client:
        yield client


def text_of(chunks: list[Any]) -> str:
    """Join what a stream has given."""
    return "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)


def test_whole_and_streamed(client: Any) -> None:
    """The same text, the same cost; the stream says what it cost where that was asked for."""
    whole = client.chat.completions.create(**EXACT, max_tokens=12)
    stream = client.chat.completions.create(
        **EXACT, max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].choices == []
    assert whole.usage.completion_tokens == 12
    assert whole.choices[0].finish_reason == chunks[-2].choices[0].finish_reason == "length"
    assert whole.system_fingerprint.startswith("fp_")
    assert whole.choices[0].aril["base_digest"]
    assert whole._request_id == whole.choices[0].aril["job"]


def test_the_streaming_helper(client: Any) -> None:
    """What adds chunks up to a completion makes the whole of them."""
    asked: Any = EXACT | {"n": 2, "extra_body": {"choice": ["yes", "no", "perhaps"]}}
    with client.chat.completions.stream(**asked) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()  # raises where an answer was cut
    whole = client.chat.completions.create(**asked)
    assert [each.message.content for each in final.choices] == [
        each.message.content for each in whole.choices
    ]


def test_adapters_and_models(client: Any) -> None:
    """The tenant's own and the shared ones are listed, and answer otherwise than the backbone."""
    names = {each.id for each in client.models.list()}
    assert names == {"aril", "tiny", "terse", "house"}
    assert client.models.retrieve("terse").owned_by == "acme"
    answers = {
        name: client.chat.completions.create(**(EXACT | {"model": name}), max_tokens=8)
        for name in sorted(names)
    }
    texts = {name: each.choices[0].message.content for name, each in answers.items()}
    assert texts["aril"] == texts["tiny"]
    assert len(set(texts.values())) == 3
    assert answers["terse"].choices[0].aril["adapter"] == "terse"
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(**(EXACT | {"model": "pirate"}))
    assert refused.value.code == "unknown_adapter"
    assert refused.value.param == "model"


def test_sampling(client: Any) -> None:
    """Log probabilities, several answers, stops, seeds."""
    answer = client.chat.completions.create(
        model="aril",
        messages=MESSAGES,
        n=3,
        seed=5,
        logprobs=True,
        top_logprobs=2,
        max_tokens=6,
    )
    rows = [each.logprobs.content for each in answer.choices]
    assert [len(each) for each in rows] == [6, 6, 6]
    assert all(len(row.top_logprobs) == 2 for each in rows for row in each)
    assert len({each.message.content for each in answer.choices}) > 1
    again = client.chat.completions.create(
        model="aril", messages=MESSAGES, n=3, seed=5, max_tokens=6
    )
    assert [each.message.content for each in again.choices] == [
        each.message.content for each in answer.choices
    ]
    whole = client.chat.completions.create(**EXACT, max_tokens=20).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    cut = client.chat.completions.create(**EXACT, max_tokens=20, stop=[stop])
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_forms_and_tools(client: Any) -> None:
    """An answer that is whole is what its schema says; tools are the template's to show."""
    schema = {
        "type": "object",
        "properties": {"answer": {"enum": ["yes", "no"]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        **EXACT,
        max_tokens=300,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": schema, "strict": True},
        },
        tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}],
        tool_choice="auto",
    )
    assert answer.choices[0].finish_reason == "stop"
    assert json.loads(answer.choices[0].message.content)["answer"] in {"yes", "no"}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**EXACT, tool_choice="required")
    assert refused.value.param == "tool_choice"


def test_texts(client: Any) -> None:
    """The older endpoint: several prompts, echo, token ids, streamed."""
    answer = client.completions.create(
        model="aril", prompt=["one two", "three"], max_tokens=4, echo=True, temperature=0
    )
    assert [each.text[:5] for each in answer.choices] == ["one t", "three"]
    assert answer.usage.completion_tokens == 8
    stream = client.completions.create(
        model="aril", prompt=[5, 6, 7], max_tokens=4, temperature=0, stream=True, logprobs=1
    )
    assert sum(len(each.choices[0].logprobs.tokens) for each in stream if each.choices[0].logprobs)


def test_typed_errors(client: Any, stand: Stand) -> None:
    """Each error is the exception that its users catch, with our code, limit and value."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**EXACT, max_tokens=100_000_000)
    assert refused.value.code == "limit_exceeded"
    assert refused.value.body["given"] == 100_000_000
    assert refused.value.body["limit"] < 100_000_000
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="aril", messages=[{"role": "user", "content": "word " * 2_000}], stream=True
        )
    assert refused.value.code == "prompt_too_long"
    with (
        openai.OpenAI(base_url=f"{stand.url}/v1", api_key="wrong") as stranger,
        pytest.raises(openai.AuthenticationError) as denied,
    ):
        stranger.models.list()
    assert denied.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=f"{stand.url}/v1", api_key=SLOW_KEY, max_retries=0) as slow:
        slow.models.list()
        with pytest.raises(openai.RateLimitError) as limited:
            slow.models.list()
        assert limited.value.code == "rate_limit_exceeded"
        assert limited.value.type == "rate_limit_error"
        assert limited.value.response.headers["x-ratelimit-remaining-requests"] == "0"
        patient = slow.with_options(max_retries=4)
        for _ in range(3):  # it waits as it is told, and gets through
            patient.models.list()


def test_a_retry_gets_the_first_answer(client: Any) -> None:
    """Under one key there is one answer, whoever asks again, with its seed and its id."""
    asked = {"model": "aril", "messages": MESSAGES, "max_tokens": 10}
    headers = {"Idempotency-Key": f"order-{time.time_ns()}"}
    first, again = (
        client.chat.completions.create(**asked, extra_headers=headers) for _ in range(2)
    )
    assert first.choices[0].message == again.choices[0].message
    assert first.id == again.id
    assert first.choices[0].aril["seed"] == again.choices[0].aril["seed"]
    stream = client.chat.completions.create(**asked, stream=True, extra_headers=headers)
    assert text_of(list(stream)) == first.choices[0].message.content
    read = client.chat.completions.retrieve(first.id)
    assert read.choices[0].message == first.choices[0].message


def test_another_request_under_a_known_key(client: Any) -> None:
    """It is refused, whole and as a stream, while the first runs and behind its end."""
    headers = {"Idempotency-Key": f"order-{time.time_ns()}"}
    running = client.chat.completions.create(**LONG, stream=True, extra_headers=headers)
    next(iter(running))
    for more in ({}, {"stream": True}):
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.chat.completions.create(**EXACT, **more, extra_headers=headers)
        assert refused.value.code == "idempotency_key_reused"
    assert len(text_of(list(running))) > 0
    with pytest.raises(openai.UnprocessableEntityError):
        client.responses.create(model="aril", input="else", extra_headers=headers)


def test_leaving_cancels(client: Any) -> None:
    """The worker is told at once, and says so in the answer's log."""
    stream = client.chat.completions.create(**LONG, stream=True)
    first = next(iter(stream))
    stream.close()
    with pytest.raises(openai.APIStatusError) as ended:
        client.with_options(max_retries=0).chat.completions.retrieve(first.id)
    assert ended.value.status_code == 499
    assert ended.value.code == "cancelled"


def test_a_time_out_cancels(client: Any, stand: Stand) -> None:
    """A client that waits no longer has left, and the worker is told."""
    before = asyncio.run(stand.left())
    short = client.with_options(timeout=0.5, max_retries=0)
    with pytest.raises(openai.APITimeoutError):
        short.chat.completions.create(**LONG, logprobs=True, top_logprobs=20)
    until = time.monotonic() + 20
    while asyncio.run(stand.left()) == before and time.monotonic() < until:
        time.sleep(0.1)
    assert asyncio.run(stand.left()) == before + 1


def test_an_error_in_mid_stream(client: Any, stand: Stand) -> None:
    """It is raised by the stream, with our code."""
    stream = client.chat.completions.create(**LONG, stream=True)
    chunks = iter(stream)
    first = next(chunks)
    asyncio.run(stand.post(f"/v1/chat/completions/{first.id}/cancel"))
    with pytest.raises(openai.APIError) as ended:
        for _ in chunks:
            pass
    assert ended.value.code == "cancelled"
    assert ended.value.body["retryable"] is False


async def test_many_at_once(stand: Stand) -> None:
    """The asynchronous client, with more streams than the worker has rows."""
    async with openai.AsyncOpenAI(base_url=f"{stand.url}/v1", api_key=KEY, timeout=240) as client:

        async def one(number: int) -> str:
            messages: Any = [{"role": "user", "content": f"number {number}"}]
            stream = await client.chat.completions.create(
                model="aril", messages=messages, temperature=0, max_tokens=10, stream=True
            )
            return text_of([each async for each in stream])

        texts = await asyncio.gather(*(one(number) for number in range(24)))
        whole = await client.chat.completions.create(
            model="aril",
            messages=[{"role": "user", "content": "number 7"}],
            temperature=0,
            max_tokens=10,
        )
    assert all(texts)
    assert texts[7] == whole.choices[0].message.content
