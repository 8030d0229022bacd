"""What comes of a sampled token: the next piece of its answer, or why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.schemas import ErrorCode, JobError
from aril.worker.engine.request import Output
from aril.worker.engine.sampler import DEAD, FAILED, INVALID
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from aril.worker.engine.answer import Answer
    from aril.worker.engine.prompt_rows import PromptRows
    from aril.worker.engine.request import TokenLogprobs
    from aril.worker.engine.sequence import TokenSequence

log = get_logger(__name__)


def next_output(
    sequence: TokenSequence, answer: Answer, token: int, logprobs: TokenLogprobs | None
) -> Output:
    """Return what a sequence's next token brings; `token` may be one of the sampler's excuses."""
    key, rows = sequence.key, sequence.prompt_rows
    fault = _fault(rows, token, answer)
    if fault is not None:
        return Output(key, error=fault)
    whole = answer.finish  # when it was resumed, for what its prompt is told
    if whole is not None:
        told = None if rows is None else rows.told()
        return Output(key, finish=whole, prompt_logprobs=told)
    try:
        text = answer.push(token)
    except JobError as dead:  # of its constraint
        return Output(key, error=dead.bare())
    except Exception:
        log.exception("text_failed", key=key)
        error = JobError(ErrorCode.INTERNAL, "a token could not be made text")
        return Output(key, error=error)
    entries = None if logprobs is None else (logprobs,)
    told = rows.told() if rows is not None and answer.finish is not None else None
    return Output(key, (token,), text, entries, answer.finish, prompt_logprobs=told)


def _fault(rows: PromptRows | None, token: int, answer: Answer) -> JobError | None:
    """Tell why a row has no next token, if so."""
    if rows is not None and rows.broken:
        return JobError(ErrorCode.INTERNAL, "the prompt's logits have no probabilities")
    if token == INVALID:
        return JobError(ErrorCode.INTERNAL, "the model's logits are not finite")
    if token == FAILED:
        return JobError(ErrorCode.INTERNAL, "no token could be chosen")
    if token == DEAD:  # where the constraint knows of nothing, no such token exists
        known = None if answer.matcher is None else answer.matcher.error
        return known or JobError(ErrorCode.INVALID_JOB, "the constraint: no token can follow here")
    return None
