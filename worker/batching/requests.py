"""What the engine gets of a job that is prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.engine.request import GenerationRequest

if TYPE_CHECKING:
    from aril.worker.job import Entry


def request_of(entry: Entry, salt: str) -> GenerationRequest:
    """Return the request; jobs of one `salt` find each other's beginnings in the cache."""
    job = entry.job
    assert job is not None, "a refused record is never dispatched"  # noqa: S101 - ours
    return GenerationRequest(
        key=entry.key,
        prompt_ids=entry.prompt_ids,
        sampling=job.sampling.model_copy(update={"max_tokens": entry.answer_tokens}),
        seed=entry.seed,
        adapter=entry.adapter,
        adapter_scale=job.adapter_scale,
        active_from=(entry.activation and entry.activation.start) or 0,
        resume_ids=entry.resume_ids,
        constraint=entry.constraint,
        continues_text=job.messages is None or job.continue_final_message,
        salt=salt,
    )
