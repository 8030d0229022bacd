"""What bodies of both endpoints may say: the model, how tokens are chosen, how many answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from aril.job_lines import sampling_over, without_adapters
from aril.openai.body import Body
from aril.openai.errors import Refused
from aril.openai.forms import take_form
from aril.openai.jobs import arguments_of
from aril.openai.models import BACKBONE, adapter_of
from aril.schemas import ErrorCode, limits

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aril.openai.jobs import JobFields
    from aril.schemas import Job

Endpoint = Literal["chat.completion", "text_completion"]
"""By the `object` that answers."""

MAX_N: Final = 128
"""Answers to one prompt: OpenAI's bound."""
MAX_JOBS: Final = 1_024
"""Of one request, prompts times `n`."""
SAMPLING: Final = (
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "min_tokens",
    "seed",
    "logit_bias",
    "stop_token_ids",
    "ignore_eos",
    "prompt_logprobs",
)
"""What both forms have under one name with one meaning."""
EXTENSIONS: Final = ("adapters", "adapter_scale", "deadline_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks for: `jobs` are its choices, `n` for each of its prompts in turn."""

    endpoint: Endpoint
    model: str
    jobs: tuple[JobFields, ...]
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    echoed: tuple[str, ...] = ()
    """Where the prompt is part of the answer: what comes before each choice."""
    top_logprobs: int | None = None
    return_token_ids: bool = False


class Common:
    """What bodies of both endpoints may say, taken off a body."""

    def __init__(
        self,
        body: Body,
        names: dict[str, str],
        bases: Collection[str],
        defaults: Mapping[str, Any],
    ) -> None:
        given = body.take_as(str, "model")
        self.model = given or BACKBONE
        self.n = _n(body)
        self.stream = bool(body.take_as(bool, "stream"))
        self.include_usage = _include_usage(body)
        self.return_token_ids = bool(body.take_as(bool, "return_token_ids"))
        self.sampling = _sampling(body, names, defaults.get("sampling") or {})
        self.fields = _job(body, adapter_of(self.model, bases), defaults)
        if "adapter" in self.fields and self.fields["adapter"] is not None:
            names["adapter"] = "model"

    def made(
        self,
        endpoint: Endpoint,
        jobs: list[Job],
        *,
        echoed: tuple[str, ...] = (),
    ) -> Asked:
        """Return the whole, each job `n` times."""
        if len(jobs) * self.n > MAX_JOBS:
            raise Refused(
                f"n: at most {MAX_JOBS} answers to a request, not {len(jobs) * self.n}",
                param="n",
                code=ErrorCode.LIMIT_EXCEEDED,
                limit=MAX_JOBS,
                given=len(jobs) * self.n,
            )
        return Asked(
            endpoint=endpoint,
            model=self.model,
            jobs=tuple(_choice(job, at) for job in jobs for at in range(self.n)),
            n=self.n,
            stream=self.stream,
            include_usage=self.include_usage,
            echoed=echoed,
            top_logprobs=jobs[0].sampling.logprobs,
            return_token_ids=self.return_token_ids,
        )


def _job(body: Body, adapter: str | None, defaults: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name in EXTENSIONS if (value := body.take(name)) is not None}
    named = body.take_as(str, "adapter")
    if adapter is not None and named is not None and named != adapter:
        raise Refused("adapter: model names another", param="adapter")
    if adapter is None:
        adapter = named
    if adapter is not None and "adapters" in own:
        raise Refused("adapters: one adapter is named already", param="adapters")
    if adapter is not None:
        own["adapter"] = adapter
    if (priority := body.take_as(int, "priority")) is not None:
        own["priority"] = -priority  # vLLM's lower goes first, the contract's higher
    if (metadata := _metadata(body)) is not None:
        own["metadata"] = metadata
    fields = without_adapters(defaults, own) | own
    fields.pop("sampling", None)
    return fields


def _metadata(body: Body) -> dict[str, Any] | None:
    metadata, user = body.take_as(dict, "metadata"), body.take_as(str, "user")
    return metadata if user is None else {"user": user} | (metadata or {})


def _sampling(body: Body, names: dict[str, str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {
        name: value for name in SAMPLING if (value := body.take(name)) is not None
    }
    if (stop := body.take("stop")) is not None:
        own["stop"] = [stop] if isinstance(stop, str) else stop
    if (top_k := body.take("top_k")) is not None:
        own["top_k"] = 0 if top_k == -1 else top_k  # vLLM's other word for off
    return sampling_over(defaults, own | take_form(body, names))


def _n(body: Body) -> int:
    n = body.take_as(int, "n")
    if n is None:
        return 1
    if not 1 <= n <= MAX_N:
        code = ErrorCode.LIMIT_EXCEEDED if n > MAX_N else ErrorCode.INVALID_JOB
        bound = MAX_N if n > MAX_N else 1
        given = float(n) if abs(n) <= limits.MAX_OFFSET else None  # it may have 4,000 digits
        words = f"n: at {'most' if n > MAX_N else 'least'} {bound}, not {n!r:.24}"
        raise Refused(words, param="n", code=code, limit=bound, given=given)
    return n


def _include_usage(body: Body) -> bool:
    given = body.take_as(dict, "stream_options")
    if given is None:
        return False
    options = Body(given, "stream_options")
    include = bool(options.take_as(bool, "include_usage"))
    # Known only at the end; a client that adds up what it is told is told it then.
    options.end(frozenset({"continuous_usage_stats", "include_obfuscation"}))
    return include


def _choice(job: Job, at: int) -> JobFields:
    """Return one of the answers to a prompt: with a seed, each its own, or they were all one."""
    seed = job.sampling.seed
    if not at or seed is None:
        return arguments_of(job)
    own = job.sampling.model_copy(update={"seed": (seed + at) % (limits.MAX_SEED + 1)})
    return arguments_of(job, sampling=own)
