"""Reply records to bytes: one record per token makes this the hot path of a worker."""

import math
from typing import Any, assert_never

import msgpack

from aril.schemas import limits
from aril.schemas.errors import DecodeError
from aril.schemas.prompt_logprobs import pack_prompt_logprobs
from aril.schemas.reply import (
    ClaimRecord,
    DoneRecord,
    ErrorRecord,
    ReleaseRecord,
    ReplyRecord,
    TokenLogprobs,
    TokensRecord,
)
from aril.schemas.reply_decoder import decode_reply

Fields = dict[str, Any]


def encode_reply(record: ReplyRecord) -> bytes:
    """Return the record's value. ValueError for a record that no reader would accept."""
    if isinstance(record, TokensRecord):
        return _encode_tokens(record)
    fields: Fields = {
        "v": limits.VERSION,
        "kind": "",
        "job": record.job,
        "epoch": record.epoch,
        "worker": record.worker,
    }
    match record:
        case ClaimRecord():
            fields["kind"] = "claim"
            if record.alone:
                fields["alone"] = True
            if record.base_digest is not None:
                fields["base_digest"] = record.base_digest
        case ReleaseRecord():
            fields["kind"] = "release"
        case DoneRecord():
            fields |= _done_fields(record)
        case ErrorRecord():
            fields |= _error_fields(record)
        case _:
            assert_never(record)
    data = _pack(fields)
    # A terminal that no reader accepts would leave its job open for ever: look once more.
    try:
        decode_reply(data)
    except DecodeError as error:
        raise ValueError(f"{fields['kind']} record, {error.message}") from None
    return data


def _encode_tokens(record: TokensRecord) -> bytes:
    if not 0 < len(record.ids) <= limits.MAX_TOKENS_PER_RECORD:
        raise ValueError(
            f"a tokens record holds 1 to {limits.MAX_TOKENS_PER_RECORD} ids, not {len(record.ids)}"
        )
    fields: Fields = {
        "v": limits.VERSION,
        "kind": "tokens",
        "job": record.job,
        "epoch": record.epoch,
        "worker": record.worker,
        "index": record.index,
        "ids": record.ids,
        "text": record.text,
    }
    if len(record.text) > limits.MAX_REPLY_TEXT_CHARS:
        raise ValueError(
            f"text of at most {limits.MAX_REPLY_TEXT_CHARS} characters, not {len(record.text)}"
        )
    if record.logprobs is not None:
        if len(record.logprobs) != len(record.ids):
            raise ValueError(f"{len(record.logprobs)} logprobs for {len(record.ids)} ids")
        fields["logprobs"] = [_logprob_row(row) for row in record.logprobs]
    if record.base_digest is not None:
        fields["base_digest"] = record.base_digest
    return _pack(fields)


def _pack(fields: Fields) -> bytes:
    data: bytes = msgpack.packb(fields)
    if len(data) > limits.MAX_REPLY_BYTES:
        raise ValueError(
            f"a {fields['kind']} record of {len(data)} bytes; at most {limits.MAX_REPLY_BYTES}"
        )
    return data


def _logprob_row(row: TokenLogprobs) -> list[float]:
    flat: list[float] = [row.chosen]
    for token, logprob in row.top:
        flat += (token, logprob)
    if not all(map(math.isfinite, flat)):
        raise ValueError("logprobs are finite; clamp them before they are sent")
    return flat


def _done_fields(record: DoneRecord) -> Fields:
    rows = record.prompt_logprobs
    return {
        "kind": "done",
        "index": record.index,
        "text": record.text,
        "finish_reason": record.finish_reason,
        "usage": record.usage._asdict(),
        "adapter": record.adapter,
        "digest": record.digest,
        **_activation(record),
        **({"adapters": [each._asdict() for each in record.adapters]} if record.adapters else {}),
        "base": record.base,
        **({"base_digest": record.base_digest} if record.base_digest is not None else {}),
        **({"earlier_bases": list(record.earlier_bases)} if record.earlier_bases else {}),
        "seed": record.seed,
        "timings": record.timings._asdict(),
        **({} if rows is None else {"prompt_logprobs": pack_prompt_logprobs(rows)}),
        "metadata": dict(record.metadata),
    }


def _activation(record: DoneRecord) -> Fields:
    told = record.activation
    return {} if told is None else {"adapter_active_from": told.start}


def _error_fields(record: ErrorRecord) -> Fields:
    optional = {
        "limit": record.limit,
        "given": record.given,
        "retry_after_ms": record.retry_after_ms,
    }
    return {
        "kind": "error",
        "index": record.index,
        "code": record.code.value,
        "message": record.message,
        "retryable": record.retryable,
        **{name: value for name, value in optional.items() if value is not None},
        "metadata": dict(record.metadata),
    }
