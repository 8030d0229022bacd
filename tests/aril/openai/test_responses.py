"""Answers become the bodies and chunks of the two endpoints, and chunks add up to bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril import Client
from aril.memory import MemoryBroker, MemoryTransport
from aril.openai.answers import Answer
from aril.openai.chunks import Chunks
from aril.openai.errors import Withdrawn
from aril.openai.requests import CHAT, TEXT, request_of
from aril.openai.responses import response_of
from aril.schemas import DoneEvent, ResetEvent, Timings, TokenLogprobs, TokensEvent, Usage
from tests.support.fake_worker import FakeWorker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.openai.common import Asked
    from aril.schemas import Event

HI: Final = [{"role": "user", "content": "Hi"}]
DIGEST: Final = "ab" * 32
VOCABULARY: Final = [b"a", b"bc", "ä".encode(), b" ", "€".encode()[:1], b"\n"]


def done(count: int, text: str, **others: Any) -> DoneEvent:
    """Make the end of an answer of so many tokens."""
    said: dict[str, Any] = {
        "index": count,
        "text": text,
        "finish_reason": "stop",
        "usage": Usage(7, count),
        "adapter": "terse",
        "digest": DIGEST,
        "base": "Smol",
        "base_digest": DIGEST,
        "seed": 5,
        "timings": Timings(1.0, 2.0, 3.0),
    }
    return DoneEvent(**said | others)


logprobs = st.floats(-50, 0)
rows = st.builds(
    TokenLogprobs, logprobs, st.lists(st.tuples(st.integers(0, 5), logprobs), max_size=3).map(tuple)
)


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Draw an answer as its events: pieces, some of them without text, then the end."""
    events: list[Event] = []
    count = 0
    for _ in range(draw(st.integers(0, 4))):
        ids = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
        told = tuple(draw(st.lists(rows, min_size=len(ids), max_size=len(ids))))
        events.append(TokensEvent(count, ids, draw(st.text(max_size=4)), told))
        count += len(ids)
    events.append(
        done(
            count,
            draw(st.text(max_size=4)),
            finish_reason=draw(st.sampled_from(["stop", "length"])),
        )
    )
    return events


def answers_of(asked: Asked, each: Sequence[Sequence[Event]]) -> list[Answer]:
    """Gather the events of each choice."""
    answers = [Answer(f"j{at}") for at in range(len(asked.jobs))]
    for answer, events in zip(answers, each, strict=True):
        for event in events:
            answer.add(event)
    return answers


requests = st.sampled_from([CHAT, TEXT]).flatmap(
    lambda url: st.fixed_dictionaries(
        {"n": st.integers(1, 3), "return_token_ids": st.booleans(), "stream": st.just(value=True)}
        | {"stream_options": st.fixed_dictionaries({"include_usage": st.booleans()})}
        | (
            {"messages": st.just(HI), "logprobs": st.booleans()}
            if url == CHAT
            else {"prompt": st.just("Once"), "logprobs": st.none() | st.just(2)}
        )
    ).map(lambda body: request_of(url, body))
)


def added_up(asked: Asked, chunks: list[Any]) -> dict[str, Any]:
    """Do what a client does with chunks: add them up to a body."""
    choices: list[dict[str, Any]] = [{"index": at} for at in range(len(asked.jobs))]
    for chunk in chunks:
        for piece in chunk["choices"]:
            choice = choices[piece["index"]]
            text = piece.get("delta", {}).get("content", "") + piece.get("text", "")
            choice["text"] = choice.get("text", "") + text
            choice["finish_reason"] = piece["finish_reason"] or choice.get("finish_reason")
            choice["token_ids"] = choice.get("token_ids", []) + piece.get("token_ids", [])
            for name, told in (piece["logprobs"] or {}).items():
                choice.setdefault("logprobs", {}).setdefault(name, []).extend(told or [])
    return {"choices": choices, "usage": chunks[-1].get("usage")}


@given(requests, st.data(), st.sampled_from([None, VOCABULARY.__getitem__]))
def test_chunks_add_up_to_the_body(asked: Asked, data: st.DataObject, token_bytes: Any) -> None:
    """Texts, tokens, log probabilities, reasons and usage, whatever pieces they came in."""
    each = [data.draw(streams()) for _ in asked.jobs]
    answers = answers_of(asked, each)
    body: Any = response_of(asked, answers, id="x", created=1, token_bytes=token_bytes)
    made = Chunks(asked, id="x", created=1, token_bytes=token_bytes)
    chunks: list[Any] = [chunk for at in range(len(each)) for chunk in made.opening(at)]
    for at, events in enumerate(each):
        chunks += [chunk for event in events for chunk in made.of(at, f"j{at}", event)]
    chunks += made.closing()
    whole = added_up(asked, chunks)
    for choice, added in zip(body["choices"], whole["choices"], strict=True):
        text = choice["text"] if "text" in choice else choice["message"]["content"]
        assert added["text"] == text
        assert added["finish_reason"] == choice["finish_reason"]
        assert added["token_ids"] == choice.get("token_ids", [])
        wanted = {name: told or [] for name, told in (choice["logprobs"] or {}).items()}
        assert added.get("logprobs", wanted if not any(wanted.values()) else None) == wanted
    assert whole["usage"] == (body["usage"] if asked.include_usage else None)
    assert all(("usage" in chunk) == asked.include_usage for chunk in chunks)


@given(requests, st.data())
def test_openais_own_models_read_it(asked: Asked, data: st.DataObject) -> None:
    """Bodies and chunks are valid for the types of OpenAI's package, every field as it is there."""
    types = pytest.importorskip("openai.types")
    chat_types = pytest.importorskip("openai.types.chat")
    each = [data.draw(streams()) for _ in asked.jobs]
    body: Any = response_of(asked, answers_of(asked, each), id="x", created=1)
    is_chat = asked.endpoint == "chat.completion"
    whole = (chat_types.ChatCompletion if is_chat else types.Completion).model_validate(
        body, strict=True
    )
    assert whole.to_dict(exclude_unset=True) == body
    made = Chunks(asked, id="x", created=1)
    kind = chat_types.ChatCompletionChunk if is_chat else types.Completion
    for at, events in enumerate(each):
        produced = [*made.opening(at)]
        produced += [chunk for event in events for chunk in made.of(at, "j", event)]
        for chunk in cast("list[Any]", produced):
            told = chunk
            if not is_chat:  # the package knows no text that has not ended, though the wire does
                told = chunk | {
                    "choices": [
                        choice | {"finish_reason": choice["finish_reason"] or "stop"}
                        for choice in chunk["choices"]
                    ]
                }
            assert kind.model_validate(told, strict=True).to_dict(exclude_unset=True) == told
    for chunk in made.closing():
        kind.model_validate(chunk, strict=True)


def test_what_a_body_holds() -> None:
    """One chat, word by word."""
    asked = request_of(CHAT, {"model": "terse", "messages": HI, "logprobs": True})
    events: list[Event] = [
        TokensEvent(0, (1,), "bc", (TokenLogprobs(-0.5, ((1, -0.5), (3, -1.5))),)),
        done(1, "!"),
    ]
    body = response_of(asked, answers_of(asked, [events]), id="chatcmpl-1", created=9)
    assert body == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 9,
        "model": "terse",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "bc!", "refusal": None},
                "logprobs": {
                    "content": [
                        {
                            "token": "token_id:1",
                            "logprob": -0.5,
                            "bytes": None,
                            "top_logprobs": [
                                {"token": "token_id:1", "logprob": -0.5, "bytes": None},
                                {"token": "token_id:3", "logprob": -1.5, "bytes": None},
                            ],
                        }
                    ],
                    "refusal": None,
                },
                "finish_reason": "stop",
                "aril": {
                    "job": "j0",
                    "adapter": "terse",
                    "digest": DIGEST,
                    "adapters": [],
                    "base": "Smol",
                    "base_digest": DIGEST,
                    "seed": 5,
                    "queue_ms": 1.0,
                    "ttft_ms": 2.0,
                    "total_ms": 3.0,
                },
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8},
        "system_fingerprint": "fp_" + DIGEST[:12],
    }


def test_tokens_by_their_text() -> None:
    """Where the caller has a tokenizer: also for a piece of a character."""
    asked = request_of(CHAT, {"messages": HI, "logprobs": True})
    events: list[Event] = [TokensEvent(0, (4,), "", (TokenLogprobs(-0.5),)), done(1, "€")]
    (answer,) = answers_of(asked, [events])
    body: Any = response_of(asked, [answer], id="x", created=1, token_bytes=VOCABULARY.__getitem__)
    (told,) = body["choices"][0]["logprobs"]["content"]
    assert (told["token"], told["bytes"]) == ("\N{REPLACEMENT CHARACTER}", [0xE2])


def test_texts_with_log_probabilities() -> None:
    """In the older form: offsets, and the chosen token among the likely ones."""
    asked = request_of(TEXT, {"prompt": "Once", "logprobs": 1})
    events: list[Event] = [
        TokensEvent(0, (1,), "bc", (TokenLogprobs(-2.0, ((3, -0.5),)),)),
        TokensEvent(1, (3, 0), " a", (TokenLogprobs(-0.1), TokenLogprobs(-0.2))),
        done(3, ""),
    ]
    body: Any = response_of(
        asked, answers_of(asked, [events]), id="x", created=1, token_bytes=VOCABULARY.__getitem__
    )
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["bc", " ", "a"],
        "token_logprobs": [-2.0, -0.1, -0.2],
        "top_logprobs": [{" ": -0.5, "bc": -2.0}, {" ": -0.1}, {"a": -0.2}],
        "text_offset": [0, 2, 2],
    }


def test_log_probabilities_of_a_prompt() -> None:
    """By token id, as vLLM has them; -1 is the prompt's own token where nobody knows which."""
    told = (None, TokenLogprobs(-3.0, ((5, -0.5), (6, -1.0))))
    body = {"prompt": [5, 6], "prompt_logprobs": 2}
    asked = request_of(TEXT, body)
    (answer,) = answers_of(asked, [[done(0, "", prompt_logprobs=told)]])
    choice: Any = response_of(asked, [answer], id="x", created=1)["choices"][0]
    first, second = choice["prompt_logprobs"]
    assert first is None
    assert [(key, row["logprob"], row["rank"]) for key, row in second.items()] == [
        ("6", -3.0, 2),
        ("5", -0.5, 1),
    ]
    asked = request_of(TEXT, body | {"prompt": "two words"})
    choice = response_of(asked, [answer], id="x", created=1)["choices"][0]
    assert list(choice["prompt_logprobs"][1]) == ["-1", "5", "6"]


def test_a_prompt_counts_once_for_its_answers() -> None:
    """Two prompts with two answers each."""
    asked = request_of(TEXT, {"prompt": ["a", "b"], "n": 2, "echo": True})
    body = response_of(asked, answers_of(asked, [[done(1, "x")]] * 4), id="x", created=1)
    assert body["usage"] == {"prompt_tokens": 14, "completion_tokens": 4, "total_tokens": 18}
    assert [choice["text"] for choice in cast("Any", body)["choices"]] == ["ax", "ax", "bx", "bx"]


def test_an_answer_that_begins_anew() -> None:
    """A whole body has the new one; a stream cannot take back what it has shown, else goes on."""
    asked = request_of(CHAT, {"messages": HI})
    begun: list[Event] = [TokensEvent(0, (1,), ""), ResetEvent(1), TokensEvent(0, (2,), "b")]
    answer = Answer("j")
    made = Chunks(asked, id="x", created=1)
    for event in begun:
        answer.add(event)
        made.of(0, "j", event)
    assert (answer.text, answer.token_ids) == ("b", [2])
    with pytest.raises(Withdrawn):
        made.of(0, "j", ResetEvent(1))


def test_an_answer_has_to_have_ended() -> None:
    """Half an answer is no response."""
    asked = request_of(CHAT, {"messages": HI})
    with pytest.raises(ValueError, match="not ended"):
        response_of(asked, [Answer("j")], id="x", created=1)


async def test_a_completion_is_an_answer_too() -> None:
    """What `Client.complete` gives makes the same body as the events do."""
    asked = request_of(CHAT, {"messages": [{"role": "user", "content": "one two"}], "n": 1})
    broker = MemoryBroker()
    async with (
        FakeWorker.on_memory(broker),
        Client("", "acme", transport=MemoryTransport(broker)) as client,
    ):
        (job,) = asked.jobs
        completion = await client.complete(**job)
    answer = Answer.of(completion)
    body: Any = response_of(asked, [answer], id="x", created=1)
    assert body["choices"][0]["message"]["content"] == "one two"
    assert answer.token_ids == [0, 1]
