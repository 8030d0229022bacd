"""Exceptions in logs: what kind and where, never what they say.

Templates, tokenizers, codecs and stores put what a tenant wrote into their messages, and the
variables of a frame hold it in any case. Types, files, lines and functions are code.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final

from aril.schemas import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

_MAX_CHAIN: Final = 8
_MAX_FRAMES: Final = 40  # the innermost


def describe(error: BaseException) -> list[dict[str, Any]]:
    """Return type and place of an exception and of what it came from, the newest first.

    An error number is told with the system's words for it, a JobError with its code.
    """
    return [_one(each) for each in _chain(error)]


def tell_exceptions(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put `describe` in place of the exception that a log line comes with (structlog)."""
    error = _of(event.pop("exc_info", None))
    if error is not None:
        event["exception"] = describe(error)
    return event


def as_lines(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Lay out for a terminal what `tell_exceptions` has put there (structlog)."""
    if (chain := event.get("exception")) is not None:
        event["exception"] = "\n".join(_lines(chain))
    return event


def _of(told: Any) -> BaseException | None:
    if isinstance(told, BaseException):
        return told
    found = told if isinstance(told, tuple) else sys.exc_info() if told else (None, None)
    return found[1] if isinstance(found[1], BaseException) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    last: BaseException | None = error
    while last is not None and id(last) not in seen and len(seen) < _MAX_CHAIN:
        seen.add(id(last))
        yield last
        last = last.__cause__ or (None if last.__suppress_context__ else last.__context__)


def _one(error: BaseException) -> dict[str, Any]:
    kind = type(error)
    told: dict[str, Any] = {"exc_type": kind.__qualname__, "exc_module": kind.__module__}
    if isinstance(error, JobError):
        told["code"] = error.code.value
    elif isinstance(error, OSError) and isinstance(error.errno, int):
        told["errno"] = error.errno
        told["reason"] = os.strerror(error.errno)  # the system's words, not the exception's
    stack = traceback.StackSummary.extract(
        traceback.walk_tb(error.__traceback__), limit=-_MAX_FRAMES, lookup_lines=False
    )
    told["frames"] = [
        {"filename": frame.filename, "lineno": frame.lineno, "name": frame.name} for frame in stack
    ]
    return told


def _lines(chain: list[dict[str, Any]]) -> Iterator[str]:
    for each in chain:
        reason = each.get("code") or each.get("reason")
        yield f"{each['exc_module']}.{each['exc_type']}" + (f": {reason}" if reason else "")
        for frame in reversed(each["frames"]):
            yield f"    {frame['filename']}:{frame['lineno']} in {frame['name']}"
