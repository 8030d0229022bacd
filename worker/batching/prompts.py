"""From a job to prompt tokens: chat template, tokenizer, and the limits that need both."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from aril.schemas import ErrorCode, Job, JobError
from aril.schemas.limits import MAX_PROMPT_CHARS, MAX_PROMPT_LOGPROB_NUMBERS
from aril.worker.adapters.chat_template import backbones_template
from aril.worker.batching.added_tokens import AddedTokens
from aril.worker.batching.conversation import arguments_of, messages_of
from aril.worker.intake.judge import prompt_too_long
from aril.worker.job import Prompt

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        self._added = AddedTokens(tokenizer)
        self._vocab_size = vocab_size
        self._context = context
        self._max_prompt_tokens = max_prompt_tokens
        self._max_new_tokens = max_new_tokens
        # What a job may not set by the name of a template's variable: above all the template.
        parameters = inspect.signature(tokenizer.apply_chat_template).parameters
        special = getattr(tokenizer, "special_tokens_map", {})
        self.reserved = frozenset({*parameters, "messages", *special})

    def encode(
        self, job: Job, rendered: str | None = None, *, added: Mapping[str, int] | None = None
    ) -> Prompt:
        """Return the prompt's tokens. Raises JobError where they cannot be served.

        `rendered` are the job's messages where something else than the backbone has rendered them,
        `added` are tokens with their ids that only its adapter knows.
        """
        ids = self._ids(job, rendered, added or {})
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

    def _ids(self, job: Job, rendered: str | None, added: Mapping[str, int]) -> tuple[int, ...]:
        if job.token_ids is not None:
            return job.token_ids
        if job.prompt is not None:
            return self._added.encode(job.prompt, added, special=True)
        text = self._rendered(job) if rendered is None else rendered
        return self._added.encode(text, added, special=False)

    def _rendered(self, job: Job) -> str:
        template = backbones_template(self._tokenizer).text(tools=bool(job.tools))
        if not template:
            raise JobError(
                ErrorCode.INVALID_JOB, "messages: this backbone has no chat template, send a prompt"
            )
        arguments = arguments_of(job, self.reserved, template)
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages_of(job), tokenize=False, **arguments
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


def _words(error: Exception) -> str:
    """Return a template's own words, or what went wrong in it, in one short line."""
    text = " ".join(str(error).split())
    if not isinstance(error, TemplateError):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= WORDS_CHARS else f"{text[:WORDS_CHARS]}…"
