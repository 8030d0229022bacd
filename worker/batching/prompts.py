"""From a job to prompt tokens: chat template, tokenizer, and the limits that need both."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError

from schemas import ErrorCode, Job, JobError
from worker.intake.judge import prompt_too_long


class Prompts:
    """Tokenises jobs. Called off the event loop: a long prompt takes a while.

    What it lets through, the engine can run: here alone tenants are told of these limits.
    """

    def __init__(
        self, tokenizer: Any, *, vocab_size: int, context: int, max_prompt_tokens: int
    ) -> None:
        """`context` is the most tokens that prompt and answer may have together."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._context = context
        self._max_prompt_tokens = max_prompt_tokens

    def encode(self, job: Job) -> tuple[int, ...]:
        """Return the prompt's tokens. Raises JobError where they cannot be served."""
        ids = self._ids(job)
        if not ids:
            raise JobError(ErrorCode.INVALID_JOB, "prompt: it has no tokens")
        highest = max(ids)  # a tokenizer may know more tokens than its model
        if highest >= self._vocab_size:
            raise JobError(
                ErrorCode.INVALID_JOB,
                f"{'prompt' if job.token_ids is None else 'token_ids'}: beyond the vocabulary",
                limit=self._vocab_size - 1,
                given=highest,
            )
        longest = min(self._max_prompt_tokens, self._context - 1)  # one token is the answer's
        if len(ids) > longest:
            raise prompt_too_long(len(ids), longest)
        whole = len(ids) + job.sampling.max_tokens
        if whole > self._context:
            raise JobError(
                ErrorCode.LIMIT_EXCEEDED,
                f"prompt and max_tokens: {whole} tokens together, this service holds "
                f"{self._context}",
                limit=self._context,
                given=whole,
            )
        return ids

    def _ids(self, job: Job) -> tuple[int, ...]:
        if job.token_ids is not None:
            return job.token_ids
        if job.prompt is not None:
            return tuple(self._tokenizer.encode(job.prompt))
        messages = [message.model_dump() for message in job.messages or ()]
        if not getattr(self._tokenizer, "chat_template", None):
            raise JobError(
                ErrorCode.INVALID_JOB, "messages: this backbone has no chat template, send a prompt"
            )
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError:
            raise JobError(
                ErrorCode.INVALID_JOB, "messages: the backbone's chat template refuses them"
            ) from None
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))
