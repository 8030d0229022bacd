"""From a job to prompt tokens: chat template, tokenizer, and the limits that need both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from schemas import ErrorCode, Job, JobError
from worker.intake.judge import prompt_too_long

if TYPE_CHECKING:
    from worker.settings import WorkerSettings


class Prompts:
    """Tokenises jobs. Called off the event loop: a long prompt takes a while."""

    def __init__(
        self, tokenizer: Any, *, vocab_size: int, context: int | None, settings: WorkerSettings
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._context = context or settings.kv_tokens  # tokens the backbone was made for
        self._settings = settings

    def encode(self, job: Job) -> tuple[int, ...]:
        """Return the prompt's tokens. Raises JobError where they cannot be served."""
        ids = self._ids(job)
        if not ids:
            raise JobError(ErrorCode.INVALID_JOB, "prompt: it has no tokens")
        if len(ids) > self._settings.max_prompt_tokens:
            raise prompt_too_long(len(ids), self._settings.max_prompt_tokens)
        whole = len(ids) + job.sampling.max_tokens
        limit = min(self._context, self._settings.kv_tokens)
        if len(ids) >= limit:
            raise prompt_too_long(len(ids), limit - 1)
        if whole > limit:
            raise JobError(
                ErrorCode.LIMIT_EXCEEDED,
                f"prompt and max_tokens: {whole} tokens together, this service holds {limit}",
                limit=limit,
                given=whole,
            )
        return ids

    def _ids(self, job: Job) -> tuple[int, ...]:
        if job.token_ids is not None:
            highest = max(job.token_ids)
            if highest >= self._vocab_size:
                raise JobError(
                    ErrorCode.INVALID_JOB,
                    "token_ids: beyond the vocabulary",
                    limit=self._vocab_size - 1,
                    given=highest,
                )
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
