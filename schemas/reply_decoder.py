"""Bytes to reply records, by hand: a client does it for every token.

A record that breaks a rule of this module is, for every reader, as if it were not there. A record
of a kind that version 1 does not know is skipped, too, but it is no error.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeGuard

from aril.schemas import limits, names
from aril.schemas.codec import check_version
from aril.schemas.errors import DecodeError, ErrorCode
from aril.schemas.form_errors import malformed
from aril.schemas.prompt_logprobs import unpack_prompt_logprobs
from aril.schemas.reply import (
    Activation,
    ClaimRecord,
    DoneRecord,
    Epoch,
    ErrorRecord,
    MixedAdapter,
    PromptLogprobs,
    ReleaseRecord,
    ReplyRecord,
    Timings,
    TokenLogprobs,
    TokensRecord,
    Usage,
)
from aril.schemas.unpack import unpack_map

Fields = dict[str, Any]

_CODES: Final = {code.value: code for code in ErrorCode}


def decode_reply(data: bytes | None) -> ReplyRecord | None:
    """Return the record that `data` is, or None if its kind is unknown and to be skipped.

    DecodeError for bytes that are not a record of version 1.
    """
    fields = unpack_map(data, limits.MAX_REPLY_BYTES)
    check_version(fields)
    kind = fields.get("kind")
    if type(kind) is not str:
        raise _wrong("kind")
    decode = _DECODERS.get(kind)
    return None if decode is None else decode(fields)


def _decode_tokens(fields: Fields) -> TokensRecord:
    job, epoch, worker = _head(fields)
    ids = fields.get("ids")
    if type(ids) is not list or not 0 < len(ids) <= limits.MAX_TOKENS_PER_RECORD:
        raise _wrong("ids")
    for token in ids:
        if type(token) is not int or not 0 <= token <= limits.MAX_TOKEN_ID:
            raise _wrong("ids")
    rows = fields.get("logprobs")
    return TokensRecord(
        job=job,
        epoch=epoch,
        worker=worker,
        index=_integer(fields, "index", limits.MAX_INDEX),
        ids=tuple(ids),
        text=_text(fields, "text", limits.MAX_REPLY_TEXT_CHARS),
        logprobs=None if rows is None else _logprobs(rows, len(ids)),
        base_digest=_optional_text(fields, "base_digest", limits.MAX_REPLY_NAME_CHARS),
    )


def _decode_claim(fields: Fields) -> ClaimRecord:
    job, epoch, worker = _head(fields)
    alone = fields.get("alone", False)
    if type(alone) is not bool:
        raise _wrong("alone")
    base = _optional_text(fields, "base_digest", limits.MAX_REPLY_NAME_CHARS)
    return ClaimRecord(job=job, epoch=epoch, worker=worker, alone=alone, base_digest=base)


def _decode_release(fields: Fields) -> ReleaseRecord:
    job, epoch, worker = _head(fields)
    return ReleaseRecord(job=job, epoch=epoch, worker=worker)


def _decode_done(fields: Fields) -> DoneRecord:
    job, epoch, worker = _head(fields)
    reason = fields.get("finish_reason")
    if reason not in ("stop", "length"):
        raise _wrong("finish_reason")
    usage, timings = _map(fields, "usage"), _map(fields, "timings")
    return DoneRecord(
        job=job,
        epoch=epoch,
        worker=worker,
        index=_integer(fields, "index", limits.MAX_INDEX),
        text=_text(fields, "text", limits.MAX_REPLY_TEXT_CHARS),
        finish_reason=reason,
        usage=Usage(*(_integer(usage, name, limits.MAX_INDEX) for name in Usage._fields)),
        adapter=_optional_text(fields, "adapter", limits.MAX_REPLY_NAME_CHARS),
        digest=_optional_text(fields, "digest", limits.MAX_REPLY_NAME_CHARS),
        activation=_activation(fields),
        adapters=_adapters(fields),
        base=_text(fields, "base", limits.MAX_REPLY_NAME_CHARS),
        base_digest=_optional_text(fields, "base_digest", limits.MAX_REPLY_NAME_CHARS),
        earlier_bases=_earlier_bases(fields),
        seed=_integer(fields, "seed", limits.MAX_SEED),
        timings=Timings(*(_milliseconds(timings, name) for name in Timings._fields)),
        prompt_logprobs=_prompt_logprobs(fields.get("prompt_logprobs")),
        metadata=_metadata(fields),
    )


def _decode_error(fields: Fields) -> ErrorRecord:
    job, epoch, worker = _head(fields)
    code, retryable = fields.get("code"), fields.get("retryable")
    if type(code) is not str or code not in _CODES:
        raise _wrong("code")
    if type(retryable) is not bool:
        raise _wrong("retryable")
    limit, given = fields.get("limit"), fields.get("given")
    if limit is not None and not _is_number(limit):
        raise _wrong("limit")
    if type(given) is str:
        given = _text(fields, "given", limits.MAX_GIVEN_CHARS)
    elif given is not None and not _is_number(given):
        raise _wrong("given")
    return ErrorRecord(
        job=job,
        epoch=epoch,
        worker=worker,
        index=_integer(fields, "index", limits.MAX_INDEX),
        code=_CODES[code],
        message=_text(fields, "message", limits.MAX_ERROR_MESSAGE_CHARS),
        retryable=retryable,
        limit=limit,
        given=given,
        retry_after_ms=None
        if fields.get("retry_after_ms") is None
        else _integer(fields, "retry_after_ms", limits.MAX_RETRY_AFTER_MS),
        metadata=_metadata(fields),
    )


_DECODERS: Final[dict[str, Callable[[Fields], ReplyRecord]]] = {
    "claim": _decode_claim,
    "release": _decode_release,
    "tokens": _decode_tokens,
    "done": _decode_done,
    "error": _decode_error,
}


def _head(fields: Fields) -> tuple[str, Epoch, str]:
    job, worker, epoch = fields.get("job"), fields.get("worker"), fields.get("epoch")
    if not names.is_job_id(job):
        raise _wrong("job")
    if not names.is_worker(worker):
        raise _wrong("worker")
    if type(epoch) is not list or len(epoch) != len(Epoch._fields):
        raise _wrong("epoch")
    generation, attempt = epoch
    if type(generation) is not int or not 0 <= generation <= limits.MAX_EPOCH_PART:
        raise _wrong("epoch")
    if type(attempt) is not int or not 1 <= attempt <= limits.MAX_EPOCH_PART:
        raise _wrong("epoch")
    return job, Epoch(generation, attempt), worker


def _wrong(field: str) -> DecodeError:
    return malformed("invalid_reply", f"{field}: missing or not valid")


def _integer(fields: Fields, name: str, maximum: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= maximum:
        raise _wrong(name)
    return value


def _text(fields: Fields, name: str, max_chars: int) -> str:
    value = fields.get(name)
    if type(value) is not str or len(value) > max_chars:
        raise _wrong(name)
    return value


def _optional_text(fields: Fields, name: str, max_chars: int) -> str | None:
    return None if fields.get(name) is None else _text(fields, name, max_chars)


def _activation(fields: Fields) -> Activation | None:
    name = "adapter_active_from"
    if name not in fields:
        return None
    return Activation(None if fields[name] is None else _integer(fields, name, limits.MAX_INDEX))


def _adapters(fields: Fields) -> tuple[MixedAdapter, ...]:
    if "adapters" not in fields:
        return ()
    rows = fields["adapters"]
    if type(rows) is not list or not 0 < len(rows) <= limits.MAX_MIXED_ADAPTERS:
        raise _wrong("adapters")
    return tuple(map(_adapter, rows))


def _earlier_bases(fields: Fields) -> tuple[str, ...]:
    name = "earlier_bases"
    bases = fields.get(name, [])
    if type(bases) is not list or len(bases) > limits.MAX_EARLIER_BASES:
        raise _wrong(name)
    if any(type(each) is not str or len(each) > limits.MAX_REPLY_NAME_CHARS for each in bases):
        raise _wrong(name)
    return tuple(bases)


def _adapter(row: object) -> MixedAdapter:
    if type(row) is not dict or not _is_number(weight := row.get("weight")):
        raise _wrong("adapters")
    name = _text(row, "name", limits.MAX_REPLY_NAME_CHARS)
    return MixedAdapter(name, _text(row, "digest", limits.MAX_REPLY_NAME_CHARS), float(weight))


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _milliseconds(fields: Fields, name: str) -> float:
    value = fields.get(name)
    if not _is_number(value) or value < 0:
        raise _wrong(name)
    return float(value)


def _map(fields: Fields, name: str) -> Fields:
    value = fields.get(name)
    if type(value) is not dict:
        raise _wrong(name)
    return value


def _metadata(fields: Fields) -> Mapping[str, str]:
    metadata = _map(fields, "metadata") if "metadata" in fields else {}
    if len(metadata) > limits.MAX_METADATA_ENTRIES:
        raise _wrong("metadata")
    for key, value in metadata.items():
        if len(key) > limits.MAX_METADATA_KEY_CHARS or type(value) is not str:
            raise _wrong("metadata")
        if len(value) > limits.MAX_METADATA_VALUE_CHARS:
            raise _wrong("metadata")
    return metadata


def _logprobs(rows: object, count: int) -> tuple[TokenLogprobs, ...]:
    if type(rows) is not list or len(rows) != count:
        raise _wrong("logprobs")
    return tuple(map(_logprob, rows))


def _prompt_logprobs(value: object) -> PromptLogprobs | None:
    try:
        return None if value is None else unpack_prompt_logprobs(value)
    except ValueError:
        raise _wrong("prompt_logprobs") from None


def _logprob(row: object) -> TokenLogprobs:
    if type(row) is not list or len(row) % 2 == 0 or len(row) > 1 + 2 * limits.MAX_LOGPROBS:
        raise _wrong("logprobs")
    tokens, values = row[1::2], row[::2]
    if not all(type(token) is int and 0 <= token <= limits.MAX_TOKEN_ID for token in tokens):
        raise _wrong("logprobs")
    if not all(map(_is_number, values)):
        raise _wrong("logprobs")
    chosen, *rest = map(float, values)
    return TokenLogprobs(chosen, tuple(zip(tokens, rest, strict=True)))
