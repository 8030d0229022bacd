"""Jobs and cancels: msgpack from a producer to a request, and to the verdict on its record."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, Final

import msgpack

from aril.schemas import (
    DecodeError,
    Job,
    JobError,
    decode_request,
    encode_request,
    limits,
    names,
    question_of,
)
from tests.fuzz.mutate import bend, bend_tree, chance, pick, tree
from tests.fuzz.target import ACCEPTED, Target, holds, slug, told

if TYPE_CHECKING:
    from random import Random

_IDS: Final = ("j", "job-1", "a" * 64, "A.b_c-9")
_ADAPTERS: Final = ("helpdesk", "a" * 63, "h@" + "0f" * 32, "x-1")
_WORDS: Final = ("hi", "Grüße, 世界 😀", "x" * 300, "line\nline", " ")
_CONSTRAINTS: Final = (
    {"response_format": {"type": "text"}},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": "{}"}}},
    {"regex": "(a|b)*"},
    {"choice": ["yes", "no"]},
    {"grammar": 'start: "a"'},
)
_SLACK: Final = 1_000  # bytes by which a request may grow as it is written again: floats for ints


def job_fields(rng: Random) -> dict[str, Any]:
    """Draw the map of a good job."""
    fields: dict[str, Any] = {"v": 1, "kind": "job", "id": pick(rng, _IDS), "tenant": "acme"}
    prompt = rng.random()
    if prompt < 0.4:
        fields["prompt"] = pick(rng, _WORDS)
    elif prompt < 0.7:
        ids = [int(rng.random() * 50_000) for _ in range(pick(rng, (1, 3, 20)))]
        fields["token_ids"] = ids * (40 if chance(rng, 0.02) else 1)
    else:
        turns = pick(rng, (1, 2, 5))
        role = ("system", "user", "assistant", "tool")
        fields["messages"] = [
            {"role": pick(rng, role), "content": pick(rng, _WORDS)} for _ in range(turns)
        ]
        if chance(rng, 0.4):
            fields |= _template_fields(rng)
    if chance(rng, 0.6):
        fields["sampling"] = sampling_fields(rng)
    for name, values in (
        ("adapter", _ADAPTERS),
        ("priority", (0, -100, 100, 3)),
        ("deadline_ms", (1, 60_000, limits.MAX_DEADLINE_MS)),
        ("reply_partition", (0, 7, limits.MAX_PARTITION)),
        ("reply_from", (0, 12_345, limits.MAX_OFFSET)),
        ("strict", (False, False, True)),
        ("metadata", ({}, {"trace": "1"}, {str(each): "v" * 512 for each in range(16)})),
    ):
        if chance(rng, 0.3):
            fields[name] = pick(rng, values)
    _add_adapters(rng, fields)
    if chance(rng, 0.1):
        fields["later"] = tree(rng)  # a field of a later version
    return fields


def _add_adapters(rng: Random, fields: dict[str, Any]) -> None:
    """Draw a mixture, and a strength where there is an adapter."""
    if chance(rng, 0.2):
        fields["adapters"] = [
            {"name": pick(rng, _ADAPTERS), "weight": pick(rng, (1.0, -4, 0.5))}
            for _ in range(pick(rng, (1, 2, 4)))
        ]
        if chance(rng, 0.9):
            fields.pop("adapter", None)
    if fields.keys() & {"adapter", "adapters"} and chance(rng, 0.3):
        fields["adapter_scale"] = pick(rng, (0, 0.5, 1, 4.0))


def _template_fields(rng: Random) -> dict[str, Any]:
    """Draw what goes with messages; also a conversation with all that a turn may say."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    made: dict[str, Any] = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": pick(rng, _WORDS)}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "1", "name": "f", "tool_call_id": "c"},
        ]
    }
    for name, values in (
        ("tools", ([], [call], [{}] * limits.MAX_TOOLS)),
        ("chat_template_kwargs", ({}, {"enable_thinking": False}, {"a": [1, {"b": None}]})),
        ("add_generation_prompt", (True, False)),
        ("continue_final_message", (True, False)),
    ):
        if chance(rng, 0.5):
            made[name] = pick(rng, values)
    return made


def sampling_fields(rng: Random) -> dict[str, Any]:
    """Draw a good sampling map: each field at times, its ends often."""
    fields: dict[str, Any] = {}
    for name, values in (
        ("max_tokens", (None, 1, 16, limits.MAX_MAX_TOKENS)),
        ("min_tokens", (0, 1, 3, limits.MAX_MAX_TOKENS)),
        ("logit_bias", ({}, {"0": -100.0}, {"0": 0.5, "1": 100})),
        ("n", (1,)),
        ("temperature", (0.0, 1e-6, 0.7, 2.0, 1)),
        ("top_p", (1e-9, 0.9, 1.0)),
        ("top_k", (0, 1, 2, 40, limits.MAX_TOP_K)),
        ("min_p", (0.0, 0.1, 1.0)),
        ("repetition_penalty", (0.1, 1.0, 1.2, 10.0)),
        ("presence_penalty", (-2.0, 0.0, 2.0)),
        ("frequency_penalty", (-2.0, 0.5, 2.0)),
        ("seed", (None, 0, 42, limits.MAX_SEED)),
        ("stop", ([], ["\n"], ["a" * 256] * 16)),
        ("stop_token_ids", ([], [0, 2], [limits.MAX_TOKEN_ID] * 64)),
        ("ignore_eos", (True, False)),
        ("logprobs", (None, 0, 5, limits.MAX_LOGPROBS)),
        ("prompt_logprobs", (None, 0, 5, limits.MAX_LOGPROBS)),
    ):
        if chance(rng, 0.3):
            fields[name] = pick(rng, values)
    if chance(rng, 0.3):
        fields |= copy.deepcopy(pick(rng, _CONSTRAINTS))  # it is bent in place
    return fields


def _make(rng: Random) -> bytes | None:
    kind = rng.random()
    if kind < 0.02:
        return pick(rng, (None, b"", rng.randbytes(40), msgpack.packb(tree(rng))))
    fields = job_fields(rng)
    if chance(rng, 0.1):
        fields = {"v": 1, "kind": "cancel", "id": fields["id"], "tenant": fields["tenant"]}
    if 0.15 < kind < 0.65:
        fields = bend_tree(rng, fields)
    if kind > 0.995:
        fields = _large(rng, fields)
    data: bytes = msgpack.packb(fields, use_bin_type=not chance(rng, 0.01))
    if chance(rng, 0.25):
        text = json.dumps(fields, default=repr, ensure_ascii=chance(rng, 0.5), skipkeys=True)
        data = text.encode("utf-8", errors="surrogatepass")
    return bend(rng, data) if kind > 0.6 else data


def _large(rng: Random, fields: Any) -> Any:
    """Add what is near a bound of a record's shape, or past it."""
    if not isinstance(fields, dict):
        return fields
    number = pick(rng, (64, 65, 1_025, 2_561, 8_193, 30_000))
    what: Any = pick(rng, ([0] * number, [""] * number, [[]] * number, [{}] * number))
    if chance(rng, 0.3):
        what = {str(each): each for each in range(min(number, 70))}
    if chance(rng, 0.3):
        for _ in range(pick(rng, (12, 14, 16, 600))):
            what = [what]
    fields[pick(rng, ("later", "token_ids", "messages", "metadata", "sampling"))] = what
    return fields


def _check(data: bytes | None) -> str:
    try:
        request = decode_request(data)
    except DecodeError as error:
        holds(error.tenant is None or names.is_tenant(error.tenant), "whose it was is a tenant")
        holds(error.job is None or names.is_job_id(error.job), "what it was is a job's id")
        told(error)
        return slug(error.reason)
    holds(names.is_job_id(request.id) and names.is_tenant(request.tenant), "names are names")
    if isinstance(request, Job):
        check_job(request)
    try:
        again = decode_request(encode_request(request))
    except JobError:
        holds(len(data or b"") > limits.MAX_REQUEST_BYTES - _SLACK, "what was read can be written")
    else:
        holds(again == request, "it comes back as it was")
    return ACCEPTED if isinstance(request, Job) else f"{ACCEPTED} cancel"


def check_job(job: Job) -> None:
    """Hold a job against the bounds, not by way of the model that read it."""
    sampling = job.sampling
    ends = (
        (sampling.longest, 1, limits.MAX_MAX_TOKENS),
        (sampling.min_tokens, 0, limits.MAX_MAX_TOKENS),
        (sampling.n, 1, 1),
        (len(sampling.logit_bias), 0, limits.MAX_LOGIT_BIASES),
        *(
            (each, -limits.MAX_ABSOLUTE_LOGIT_BIAS, limits.MAX_ABSOLUTE_LOGIT_BIAS)
            for each in sampling.logit_bias.values()
        ),
        (len(job.tools or ()), 0, limits.MAX_TOOLS),
        (len(job.chat_template_kwargs), 0, limits.MAX_TEMPLATE_VARIABLES),
        (sampling.temperature, 0, limits.MAX_TEMPERATURE),
        (sampling.top_p, 5e-324, 1),
        (sampling.top_k, 0, limits.MAX_TOP_K),
        (sampling.min_p, 0, 1),
        (sampling.repetition_penalty, limits.MIN_REPETITION_PENALTY, limits.MAX_REPETITION_PENALTY),
        (sampling.presence_penalty, -limits.MAX_ABSOLUTE_PENALTY, limits.MAX_ABSOLUTE_PENALTY),
        (sampling.frequency_penalty, -limits.MAX_ABSOLUTE_PENALTY, limits.MAX_ABSOLUTE_PENALTY),
        (sampling.seed or 0, 0, limits.MAX_SEED),
        (sampling.logprobs or 0, 0, limits.MAX_LOGPROBS),
        (sampling.prompt_logprobs or 0, 0, limits.MAX_LOGPROBS),
        (len(sampling.stop), 0, limits.MAX_STOP_STRINGS),
        (len(sampling.stop_token_ids), 0, limits.MAX_STOP_TOKEN_IDS),
        (job.adapter_scale, 0, limits.MAX_ADAPTER_SCALE),
        (len(job.adapters or ()), 0, limits.MAX_MIXED_ADAPTERS),
        *(
            (
                each.weight,
                -limits.MAX_ABSOLUTE_MIXTURE_WEIGHT,
                limits.MAX_ABSOLUTE_MIXTURE_WEIGHT,
            )
            for each in job.adapters or ()
        ),
        (job.priority, -limits.MAX_ABSOLUTE_PRIORITY, limits.MAX_ABSOLUTE_PRIORITY),
        (job.deadline_ms or 1, 1, limits.MAX_DEADLINE_MS),
        (job.reply_partition or 0, 0, limits.MAX_PARTITION),
        (job.reply_from or 0, 0, limits.MAX_OFFSET),
        (len(job.metadata), 0, limits.MAX_METADATA_ENTRIES),
    )
    for value, least, most in ends:
        holds(least <= value <= most, "a number is within its bounds")  # False for NaN, too
    texts = [(each, limits.MAX_STOP_CHARS) for each in sampling.stop]
    texts += [(each, limits.MAX_METADATA_KEY_CHARS) for each in job.metadata]
    texts += [(each, limits.MAX_METADATA_VALUE_CHARS) for each in job.metadata.values()]
    holds(all(type(each) is str and len(each) <= most for each, most in texts), "texts are short")
    ids = (*(job.token_ids or ()), *sampling.stop_token_ids, *map(int, sampling.logit_bias))
    holds(
        all(type(each) is int and 0 <= each <= limits.MAX_TOKEN_ID for each in ids), "ids are ids"
    )
    given = [each for each in (job.prompt, job.messages, job.token_ids) if each]
    holds(len(given) == 1, "there is one prompt, and it is not empty")
    asked = (*filter(None, [job.adapter]), *(each.name for each in job.adapters or ()))
    holds(all(map(names.is_adapter, asked)), "an adapter is a name")
    holds(job.adapter is None or job.adapters is None, "adapters are named one way")
    holds(isinstance(question_of(job), bytes), "what it asks can be told apart")


TARGET: Final = Target(
    name="requests",
    about="jobs and cancels: aril.schemas.decode_request",
    share=1_500,
    make=_make,
    check=_check,
    size=lambda data: len(data or b""),
    factor=64,  # a map of a byte's wire is 64 bytes of memory
)
