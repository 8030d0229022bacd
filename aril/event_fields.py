"""Events and errors as fields of a JSON object: what `aril send --json` and `aril batch` write."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aril.errors import JobFailed
from aril.schemas import DoneEvent

if TYPE_CHECKING:
    from aril.schemas import Event


def fields_of_event(event: Event) -> dict[str, Any]:
    """Return an event's kind and its fields, without those that say nothing."""
    kind = type(event).__name__.removesuffix("Event").lower()
    fields = {name: value for name, value in asdict(event).items() if value is not None}
    if isinstance(event, DoneEvent):
        fields |= {"usage": event.usage._asdict(), "timings": event.timings._asdict()}
        if activation := fields.pop("activation", None):
            fields["adapter_active_from"] = activation.start
        if mixed := fields.pop("adapters", None):
            fields["adapters"] = [each._asdict() for each in mixed]
    return {"event": kind, **fields}


def fields_of_error(error: Exception) -> dict[str, Any]:
    """Return why there is no answer."""
    fields: dict[str, Any] = {"code": type(error).__name__, "message": str(error)}
    if isinstance(error, JobFailed):
        fields = {
            "code": error.code,
            "message": error.message,
            "retryable": error.retryable,
            "limit": error.limit,
            "given": error.given,
            "retry_after_ms": error.retry_after_ms,
        }
    return {"event": "error", **fields}
