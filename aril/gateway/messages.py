"""A job's events as JSON messages: the wire contract's fields, without who wrote them.

    {"kind":"tokens","index":0,"ids":[9707],"text":"Hello"}
    {"kind":"reset","withdrawn":12}
    {"kind":"done","index":1,"text":"","finish_reason":"stop",…}
    {"kind":"error","index":0,"code":"cancelled","message":"…","retryable":false,…}

Of one event there is one text, whoever makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from aril.gateway.sse import to_json
from aril.schemas import DoneEvent, ErrorEvent, ResetEvent, TokensEvent
from aril.schemas.prompt_logprobs import pack_prompt_logprobs

if TYPE_CHECKING:
    from aril.schemas import Event, TokenLogprobs


def message(event: Event) -> bytes:
    """Return the message of an event: one line of JSON in UTF-8."""
    return to_json(_fields(event)).encode()


def _fields(event: Event) -> dict[str, Any]:
    match event:
        case TokensEvent():
            fields = {"kind": "tokens", "index": event.index, "ids": event.ids, "text": event.text}
            if event.logprobs is not None:
                fields["logprobs"] = [_row(each) for each in event.logprobs]
            return fields
        case ResetEvent():
            return {"kind": "reset", "withdrawn": event.withdrawn}
        case DoneEvent():
            return _done(event)
        case ErrorEvent():
            return _error(event)
    assert_never(event)


def _done(event: DoneEvent) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "kind": "done",
        "index": event.index,
        "text": event.text,
        "finish_reason": event.finish_reason,
        "usage": event.usage._asdict(),
        "adapter": event.adapter,
        "digest": event.digest,
        "base": event.base,
        "base_digest": event.base_digest,
        "seed": event.seed,
        "timings": event.timings._asdict(),
        "metadata": dict(event.metadata),
    }
    if event.activation is not None:
        fields["adapter_active_from"] = event.activation.start
    if event.adapters:
        fields["adapters"] = [each._asdict() for each in event.adapters]
    if event.earlier_bases:
        fields["earlier_bases"] = event.earlier_bases
    if event.prompt_logprobs is not None:
        fields["prompt_logprobs"] = pack_prompt_logprobs(event.prompt_logprobs)
    return fields


def _error(event: ErrorEvent) -> dict[str, Any]:
    optional = {
        "limit": event.limit,
        "given": event.given,
        "retry_after_ms": event.retry_after_ms,
    }
    return {
        "kind": "error",
        "index": event.index,
        "code": event.code.value,
        "message": event.message,
        "retryable": event.retryable,
        **{name: value for name, value in optional.items() if value is not None},
        "metadata": dict(event.metadata),
    }


def _row(row: TokenLogprobs) -> list[float]:
    flat: list[float] = [row.chosen]
    for token, logprob in row.top:
        flat += (token, logprob)
    return flat
