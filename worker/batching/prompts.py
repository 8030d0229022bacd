"""From a job to prompt tokens: chat template, tokenizer, and the limits that need both."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from schemas import ErrorCode, Job, JobError
from schemas.limits import MAX_PROMPT_CHARS, MAX_PROMPT_LOGPROB_NUMBERS
from worker.intake.judge import prompt_too_long
from worker.job import Prompt

if TYPE_CHECKING:
    from schemas.conversation import Message

WORDS_CHARS = 200  # of a template's own words that a tenant is told


class Prompts:
    """Tokenises jobs. Called off the event loop: a long prompt takes a while.

    What it lets through, the engine can run: here alone tenants are told of these limits.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        vocab_size: int,
        context: int,
        max_prompt_tokens: int,
        max_new_tokens: int,
    ) -> None:
        """`context` is the most tokens that prompt and answer may have together."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._context = context
        self._max_prompt_tokens = max_prompt_tokens
        self._max_new_tokens = max_new_tokens
        # What a job may not set by the name of a template's variable: above all the template.
        parameters = inspect.signature(tokenizer.apply_chat_template).parameters
        special = getattr(tokenizer, "special_tokens_map", {})
        self._reserved = frozenset({*parameters, "messages", *special})

    def encode(self, job: Job) -> Prompt:
        """Return the prompt's tokens. Raises JobError where they cannot be served."""
        ids = self._ids(job)
        if not ids:
            raise JobError(ErrorCode.INVALID_JOB, "prompt: it has no tokens")
        name = "prompt" if job.token_ids is None else "token_ids"
        self._check_known(name, max(ids))  # a tokenizer may know more tokens than its model
        if job.sampling.logit_bias:
            self._check_known("sampling.logit_bias", max(map(int, job.sampling.logit_bias)))
        if job.sampling.prompt_logprobs is not None:
            _check_fits(len(ids), job.sampling.prompt_logprobs)
        longest = min(self._max_prompt_tokens, self._context - 1)  # one token is the answer's
        if len(ids) > longest:
            raise prompt_too_long(len(ids), longest)
        room = self._context - len(ids)
        asked = max(job.sampling.max_tokens or 1, job.sampling.min_tokens)
        if asked > room:
            raise JobError(
                ErrorCode.LIMIT_EXCEEDED,
                f"prompt and max_tokens: {len(ids) + asked} tokens together, this service holds "
                f"{self._context}",
                limit=self._context,
                given=len(ids) + asked,
            )
        return Prompt(ids, job.sampling.max_tokens or min(room, self._max_new_tokens))

    def _check_known(self, what: str, highest: int) -> None:
        if highest >= self._vocab_size:
            raise JobError(
                ErrorCode.INVALID_JOB,
                f"{what}: beyond the vocabulary",
                limit=self._vocab_size - 1,
                given=highest,
            )

    def _ids(self, job: Job) -> tuple[int, ...]:
        if job.token_ids is not None:
            return job.token_ids
        if job.prompt is not None:
            return tuple(self._tokenizer.encode(job.prompt))
        return tuple(self._tokenizer.encode(self._rendered(job), add_special_tokens=False))

    def _rendered(self, job: Job) -> str:
        if not getattr(self._tokenizer, "chat_template", None):
            raise JobError(
                ErrorCode.INVALID_JOB, "messages: this backbone has no chat template, send a prompt"
            )
        if reserved := sorted(self._reserved & job.chat_template_kwargs.keys()):
            raise JobError(
                ErrorCode.INVALID_JOB, f"chat_template_kwargs: {reserved[0]} is not for jobs to set"
            )
        messages = [_for_template(message) for message in job.messages or ()]
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages,
                tools=list(job.tools) if job.tools else None,
                add_generation_prompt=job.add_generation_prompt and not job.continue_final_message,
                continue_final_message=job.continue_final_message,
                tokenize=False,
                **job.chat_template_kwargs,
            )
        except Exception as error:  # noqa: BLE001 - a template's code, on a tenant's values
            raise JobError(
                ErrorCode.INVALID_JOB, f"messages: the chat template refuses them: {_words(error)}"
            ) from None
        if len(text) > MAX_PROMPT_CHARS:
            raise JobError(
                ErrorCode.PROMPT_TOO_LONG,
                f"messages: at most {MAX_PROMPT_CHARS} characters once rendered, not {len(text)}",
                limit=MAX_PROMPT_CHARS,
                given=len(text),
            )
        return text


def _check_fits(tokens: int, top: int) -> None:
    """Refuse to tell more of a prompt than one record holds."""
    width = 1 + 2 * top
    numbers = (tokens - 1) * width
    if numbers > MAX_PROMPT_LOGPROB_NUMBERS:
        raise JobError(
            ErrorCode.LIMIT_EXCEEDED,
            f"sampling.prompt_logprobs: with {top} alternatives a prompt of at most "
            f"{1 + MAX_PROMPT_LOGPROB_NUMBERS // width} tokens, not {tokens}",
            limit=1 + MAX_PROMPT_LOGPROB_NUMBERS // width,
            given=tokens,
        )


def _for_template(message: Message) -> dict[str, Any]:
    """Return a turn as templates know it: content is always there, what else was given is."""
    turn = message.model_dump(exclude_defaults=True) | {"content": message.text}
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    return turn


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """Return a call with its arguments as a map, as templates want them; OpenAI has a text."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    if not isinstance(arguments, dict):
        return call
    return call | {"function": function | {"arguments": arguments}}


def _words(error: Exception) -> str:
    """Return a template's own words, or what went wrong in it, in one short line."""
    text = " ".join(str(error).split())
    if not isinstance(error, TemplateError):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= WORDS_CHARS else f"{text[:WORDS_CHARS]}…"
