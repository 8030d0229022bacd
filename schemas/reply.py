"""What a worker answers: claims, releases, tokens and exactly one visible terminal per job.

Every record names its job, the epoch of its writer and the writer itself; the reader rule
(`aril.schemas.reader`) decides from these and the order of the log which records count.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from aril.schemas.errors import ErrorCode, JobError
from aril.schemas.limits import MAX_ERROR_MESSAGE_CHARS, MAX_GIVEN_CHARS, MAX_RETRY_AFTER_MS

FinishReason = Literal["stop", "length"]


class Epoch(NamedTuple):
    """The rank of a job's writer: the group's generation, then the writer's own attempt (from 1).

    Epochs compare as tuples. (0, 0) is below every epoch that is ever written.
    """

    generation: int
    attempt: int


class TokenLogprobs(NamedTuple):
    """Natural logarithms for one position, all finite; `top` holds (token id, logprob) pairs."""

    chosen: float
    top: tuple[tuple[int, float], ...] = ()


PromptLogprobs = tuple[TokenLogprobs | None, ...]
"""One row a prompt token; None for the first, which nothing comes before."""


class Usage(NamedTuple):
    """Tokens read and written for a job."""

    prompt_tokens: int
    completion_tokens: int


class Timings(NamedTuple):
    """Milliseconds since the job's log-append time: queued, to the first token, to the end."""

    queue_ms: float
    ttft_ms: float
    total_ms: float


class Activation(NamedTuple):
    """From which of the prompt's tokens on an adapter with an invocation worked; None: nowhere."""

    start: int | None


class MixedAdapter(NamedTuple):
    """One of the adapters of a mixture that answered, the content it had, and its weight."""

    name: str
    digest: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRecord:
    """A new owner takes the job over and keeps what is visible.

    `alone` says that the job is to run with nothing beside it: earlier writers of it crashed.
    `base_digest` is of the weights of the backbone that goes on.
    """

    job: str
    epoch: Epoch
    worker: str
    alone: bool = False
    base_digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRecord:
    """A writer stops on purpose. It tells a crash from a farewell and changes nothing visible."""

    job: str
    epoch: Epoch
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensRecord:
    """One or more tokens, the first being the job's `index`-th.

    `text` is what became safe to show with them: whole characters, no part of a stop string. It
    may be empty. `logprobs` has one row per id, or is None if the job asked for none. The first of
    an epoch without a claim tells `base_digest` as a claim does.
    """

    job: str
    epoch: Epoch
    worker: str
    index: int
    ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprobs, ...] | None = None
    base_digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DoneRecord:
    """The answer is complete: `index` tokens; `text` is what was still held back.

    `activation` is None for what works everywhere: the backbone, an adapter without an invocation.
    `adapters` are a mixture's; `adapter` and `digest` are None then. `base_digest` is of the
    weights of the backbone that ended it, `earlier_bases` of others that brought some tokens.
    `prompt_logprobs` is None if the job asked for none.
    """

    job: str
    epoch: Epoch
    worker: str
    index: int
    text: str
    finish_reason: FinishReason
    usage: Usage
    adapter: str | None
    digest: str | None
    activation: Activation | None = None
    adapters: tuple[MixedAdapter, ...] = ()
    base: str
    base_digest: str | None = None
    earlier_bases: tuple[str, ...] = ()
    seed: int
    timings: Timings
    prompt_logprobs: PromptLogprobs | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRecord:
    """The job ended without a complete answer, after `index` tokens."""

    job: str
    epoch: Epoch
    worker: str
    index: int
    code: ErrorCode
    message: str
    retryable: bool
    limit: float | None = None
    given: float | str | None = None
    retry_after_ms: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def of(
        cls,
        error: JobError,
        *,
        job: str,
        epoch: Epoch,
        worker: str,
        index: int,
        metadata: Mapping[str, str] | None = None,
    ) -> "ErrorRecord":
        """Make the record that tells `error` to its tenant; its strings are cut to the limits."""
        return cls(
            job=job,
            epoch=epoch,
            worker=worker,
            index=index,
            code=error.code,
            message=error.message[:MAX_ERROR_MESSAGE_CHARS],
            retryable=error.code.retryable,
            limit=_tellable(error.limit),
            given=error.given[:MAX_GIVEN_CHARS]
            if isinstance(error.given, str)
            else _tellable(error.given),
            retry_after_ms=None
            if error.retry_after_ms is None
            else min(error.retry_after_ms, MAX_RETRY_AFTER_MS),
            metadata=metadata or {},
        )


def _tellable(number: float | None) -> float | None:
    """Infinity, NaN and integers of more than 64 bits have no place on the wire."""
    if isinstance(number, int):
        return number if -(2**63) <= number < 2**64 else None
    return number if number is not None and math.isfinite(number) else None


ReplyRecord = ClaimRecord | ReleaseRecord | TokensRecord | DoneRecord | ErrorRecord
