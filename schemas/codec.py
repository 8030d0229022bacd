"""Records to bytes and back: msgpack maps with `v` and `kind`, unknown fields ignored.

Encoding is for our own records and trusts their types; whoever breaks a limit there made a
programming error. Decoding trusts nothing.
"""

import re
from typing import Any, Final

import msgpack
from pydantic import ValidationError

from aril.schemas import limits, names
from aril.schemas.errors import DecodeError, ErrorCode, JobError
from aril.schemas.first_fields import first_fields
from aril.schemas.form_errors import malformed
from aril.schemas.job import Cancel, Job
from aril.schemas.unpack import SHAPES, unpack_map

_REQUESTS: Final[dict[str, type[Job] | type[Cancel]]] = {"job": Job, "cancel": Cancel}
# Findings of pydantic: the key of the bound in their context, and the bound in words.
_UPPER_BOUNDS: Final = {
    "less_than_equal": ("le", "at most {}"),
    "string_too_long": ("max_length", "at most {} characters"),
    "too_long": ("max_length", "at most {} elements"),
    "messages_too_long": ("max_length", "at most {} characters together"),
}
_LOWER_BOUNDS: Final = {
    "greater_than_equal": ("ge", "at least {}"),
    "greater_than": ("gt", "more than {}"),
    "string_too_short": ("min_length", "at least {} characters"),
    "too_short": ("min_length", "at least {} elements"),
}
_BOUNDS: Final = _UPPER_BOUNDS | _LOWER_BOUNDS
_OWN_WORDS: Final = frozenset({"metadata", "chat_template_kwargs", "logit_bias"})
_FIELD: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TAGS: Final = frozenset({"content_text", "content_parts"})  # pydantic's way into a union
_ATTRIBUTES: Final = ("kind", "tenant", "id", "reply_partition")
_PROMPTS: Final = ("prompt", "token_ids", "messages")
# Findings that pydantic words in terms of Python.
_PLAIN_WORDS: Final = {
    "tuple_type": "must be an array",
    "dict_type": "must be a map",
    "model_type": "must be a map",
    "missing": "is required",
    "none_required": "is not served",
    "extra_forbidden": "is no field of version 1",
}


def encode_request(request: Job | Cancel) -> bytes:
    """Return the record's value; JobError `limit_exceeded` if it is larger than a record may be."""
    fields = request.model_dump(exclude_defaults=True)
    kind = "job" if isinstance(request, Job) else "cancel"
    data: bytes = msgpack.packb({"v": limits.VERSION, "kind": kind, **fields})
    if len(data) > limits.MAX_REQUEST_BYTES:
        message = f"bytes in the record: at most {limits.MAX_REQUEST_BYTES}, not {len(data)}"
        raise JobError(
            ErrorCode.LIMIT_EXCEEDED,
            message,
            limit=limits.MAX_REQUEST_BYTES,
            given=len(data),
        )
    return data


def question_of(job: Job) -> bytes:
    """Return what a job asks, in one form: equal for jobs that ask the same, however it is written.

    Left out is where its reader waits: a program that asks again after a restart waits elsewhere.
    """
    fields = job.model_dump(
        exclude_defaults=True,
        exclude={"reply_from", "reply_partition", "metadata", "chat_template_kwargs"},
    )
    unordered: list[dict[str, Any]] = [
        job.metadata,
        job.sampling.logit_bias,
        job.chat_template_kwargs,
    ]
    if fields.get("sampling"):
        fields["sampling"].pop("logit_bias", None)
    data: bytes = msgpack.packb([fields, *(sorted(each.items()) for each in unordered)])
    return data


def decode_request(data: bytes | None) -> Job | Cancel:
    """Return the job or cancellation that `data` is; DecodeError if it is neither."""
    try:
        fields = unpack_map(data, limits.MAX_REQUEST_BYTES)
    except DecodeError as error:
        if data and error.reason in SHAPES:
            _attribute(error, first_fields(data, _ATTRIBUTES))
        raise
    try:
        return _validate(fields)
    except DecodeError as error:
        _attribute(error, fields)
        raise


def _validate(fields: dict[str, Any]) -> Job | Cancel:
    check_version(fields)
    kind = fields.get("kind")
    model = _REQUESTS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise malformed("unknown_kind", "kind: must be 'job' or 'cancel'")
    asked = {name: value for name, value in fields.items() if name not in ("v", "kind")}
    try:
        strict = model is Job and asked.get("strict") is True
        return model.model_validate(asked, extra="forbid" if strict else None)
    except ValidationError as error:
        raise _explain(error) from None


def check_version(fields: dict[str, Any]) -> None:
    """Raise DecodeError `unsupported_version` unless `v` is the integer 1."""
    version = fields.get("v")
    if type(version) is int and version == limits.VERSION:
        return
    raise DecodeError(
        ErrorCode.UNSUPPORTED_VERSION,
        f"v: this service reads version {limits.VERSION}",
        reason="unsupported_version",
        limit=limits.VERSION,
        given=version if type(version) is int else None,
    )


def _attribute(error: DecodeError, fields: dict[str, Any]) -> None:
    """Note whose record it was, as far as that can be read, so that it can be answered."""
    kind, tenant, job = fields.get("kind"), fields.get("tenant"), fields.get("id")
    partition = fields.get("reply_partition")
    error.kind = kind if isinstance(kind, str) and kind in _REQUESTS else None
    error.tenant = tenant if names.is_tenant(tenant) else None
    error.job = job if names.is_job_id(job) else None
    if type(partition) is int and 0 <= partition <= limits.MAX_PARTITION:
        error.reply_partition = partition


def _explain(error: ValidationError) -> DecodeError:
    """Put pydantic's first finding into one line that names field and limit but no content."""
    finding = error.errors(include_url=False)[0]
    kind, field = finding["type"], _path(finding["loc"])
    if kind not in _BOUNDS:
        said = _PLAIN_WORDS.get(kind) or finding["msg"].removeprefix("Input ")
        message = f"{field}: {said}" if field else said
        return DecodeError(ErrorCode.INVALID_JOB, message, reason=kind)
    key, phrase = _BOUNDS[kind]
    context = finding.get("ctx", {})
    limit = context[key]
    given = context.get("actual_length")
    if given is None:
        value = finding["input"]
        given = value if isinstance(value, int | float) else len(value)
    message = f"{field}: {phrase.format(limit)}, not {given}"
    return DecodeError(_bound_code(kind, field), message, reason=kind, limit=limit, given=given)


def _bound_code(kind: str, field: str) -> ErrorCode:
    """Past an upper bound is a limit of the service, below a lower one a mistake in the job."""
    if kind not in _UPPER_BOUNDS:
        return ErrorCode.INVALID_JOB
    if kind != "less_than_equal" and field.startswith(_PROMPTS):
        return ErrorCode.PROMPT_TOO_LONG
    return ErrorCode.LIMIT_EXCEEDED


def _path(where: tuple[int | str, ...]) -> str:
    """Return `sampling.stop[2]`; keys that are the tenant's own words are left out."""
    path = ""
    for part in where:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _FIELD.fullmatch(part) is None:
            return f"{path}.?".removeprefix(".")
        elif part not in _TAGS:
            path += f".{part}"
        if part in _OWN_WORDS:
            break
    return path.removeprefix(".")
