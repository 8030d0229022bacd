"""Answers → the body of a response: `chat.completion` or `text_completion`, with all its choices.

answers = [Answer(stream.job) for stream in streams]  # fed the events of their streams
body = response_of(asked, answers, id="chatcmpl-…", created=int(time.time()))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aril.openai.answers import told_of
from aril.openai.logprobs import chat_logprobs, prompt_logprobs, text_logprobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.openai.answers import Answer
    from aril.openai.common import Asked
    from aril.openai.logprobs import TokenBytes
    from aril.openai.shapes import (
        ChatChoice,
        ChatCompletion,
        PromptLogprobs,
        TextChoice,
        TextCompletion,
        Usage,
    )
    from aril.schemas import DoneEvent
    from aril.stream import Completion

FINGERPRINT_DIGITS: Final = 12
ID_PREFIXES: Final = {"chat.completion": "chatcmpl-", "text_completion": "cmpl-"}


def response_of(
    asked: Asked,
    answers: Sequence[Answer],
    *,
    id: str,  # noqa: A002 - what it is called there
    created: int,
    token_bytes: TokenBytes | None = None,
) -> ChatCompletion | TextCompletion:
    """Return the body; `answers` are whole, one for each of `asked.jobs`, in their order.

    `created` is in seconds since 1970. Raises ValueError if an answer has not ended.
    """
    ends = [_end(answer) for answer in answers]
    if len(ends) != len(asked.jobs):
        raise ValueError(f"{len(ends)} answers to {len(asked.jobs)} jobs")
    usage, fingerprint = usage_of(ends, asked.n), _fingerprint(ends[0])
    if asked.endpoint == "chat.completion":
        return {
            "id": id,
            "object": "chat.completion",
            "created": created,
            "model": asked.model,
            "choices": [
                _chat_choice(asked, at, answer, token_bytes) for at, answer in enumerate(answers)
            ],
            "usage": usage,
            "system_fingerprint": fingerprint,
        }
    return {
        "id": id,
        "object": "text_completion",
        "created": created,
        "model": asked.model,
        "choices": [
            _text_choice(asked, at, answer, token_bytes) for at, answer in enumerate(answers)
        ],
        "usage": usage,
        "system_fingerprint": fingerprint,
    }


def usage_of(ends: Sequence[DoneEvent | Completion], n: int) -> Usage:
    """Return the tokens of all choices; those of a prompt count once for its `n` answers."""
    prompt = sum(end.usage.prompt_tokens for end in ends[::n])
    completion = sum(end.usage.completion_tokens for end in ends)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def prompt_rows(
    asked: Asked, at: int, end: DoneEvent | Completion, token_bytes: TokenBytes | None
) -> PromptLogprobs | None:
    """Return the log probabilities of the prompt of choice `at`, None if none were asked for."""
    if end.prompt_logprobs is None:
        return None
    ids = asked.jobs[at].get("token_ids")
    return prompt_logprobs(ids, end.prompt_logprobs, token_bytes)


def _chat_choice(
    asked: Asked, at: int, answer: Answer, token_bytes: TokenBytes | None
) -> ChatChoice:
    end = _end(answer)
    wanted = asked.top_logprobs is not None
    choice: ChatChoice = {
        "index": at,
        "message": {"role": "assistant", "content": answer.text, "refusal": None},
        "logprobs": chat_logprobs(answer.token_ids, answer.rows, token_bytes) if wanted else None,
        "finish_reason": end.finish_reason,
        "aril": told_of(answer.job, end),
    }
    if asked.return_token_ids:
        choice["token_ids"] = answer.token_ids
    if (rows := prompt_rows(asked, at, end, token_bytes)) is not None:
        choice["prompt_logprobs"] = rows
    return choice


def _text_choice(
    asked: Asked, at: int, answer: Answer, token_bytes: TokenBytes | None
) -> TextChoice:
    end = _end(answer)
    wanted = asked.top_logprobs is not None
    choice: TextChoice = {
        "index": at,
        "text": (asked.echoed[at] if asked.echoed else "") + answer.text,
        "logprobs": text_logprobs(answer.token_ids, answer.rows, token_bytes, answer.offsets)
        if wanted
        else None,
        "finish_reason": end.finish_reason,
        "aril": told_of(answer.job, end),
    }
    if asked.return_token_ids:
        choice["token_ids"] = answer.token_ids
    if (rows := prompt_rows(asked, at, end, token_bytes)) is not None:
        choice["prompt_logprobs"] = rows
    return choice


def _end(answer: Answer) -> DoneEvent | Completion:
    if answer.end is None:
        raise ValueError(f"the answer to job {answer.job} has not ended")
    return answer.end


def _fingerprint(end: DoneEvent | Completion) -> str | None:
    """Return what OpenAI calls the backend's configuration: the backbone's weights."""
    return None if end.base_digest is None else f"fp_{end.base_digest[:FINGERPRINT_DIGITS]}"
