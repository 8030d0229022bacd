"""A JSON Schema as it goes to the engine: bounded, and with nothing that the engine takes amiss."""

from __future__ import annotations

import json
from typing import Any, Final

from aril.schemas import ErrorCode, JobError
from aril.schemas.limits import MAX_REGEX_CHARS, MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH

# Below these keywords there are values, not schemas.
_VALUES: Final = frozenset({"const", "default", "enum", "examples"})
_OPTIONS: Final = "x-guidance"  # the engine's own: separators that are no JSON, for one


def checked_schema(text: str, field: str) -> str:
    """Return the schema in one line. Raises JobError for one that cannot be kept to."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        raise JobError(ErrorCode.INVALID_JOB, f"{field}: the schema is no JSON") from None
    if not isinstance(schema, dict):
        raise JobError(ErrorCode.INVALID_JOB, f"{field}: the schema is no map")
    schema.pop(_OPTIONS, None)
    _walk(schema, field)
    compact = json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
    try:
        size = len(compact.encode())
    except UnicodeEncodeError:  # `"\ud800"` is an escape that JSON has
        raise JobError(
            ErrorCode.INVALID_JOB, f"{field}: a string in the schema has half a character"
        ) from None
    if size > MAX_SCHEMA_BYTES:
        raise _too_much(field, "bytes in the schema", MAX_SCHEMA_BYTES, size)
    return compact


def _walk(schema: dict[str, Any], field: str) -> None:
    level: list[Any] = [schema]
    for _ in range(MAX_SCHEMA_DEPTH):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                _check_keywords(each, field)
                below += [value for key, value in each.items() if key not in _VALUES]
            else:
                below += each
        level = [each for each in below if isinstance(each, dict | list)]
        if not level:
            return
    raise JobError(
        ErrorCode.LIMIT_EXCEEDED,
        f"{field}: the schema is nested at most {MAX_SCHEMA_DEPTH} deep",
        limit=MAX_SCHEMA_DEPTH,
    )


def _check_keywords(schema: dict[str, Any], field: str) -> None:
    pattern, least = schema.get("pattern"), schema.get("minProperties")
    if isinstance(pattern, str) and len(pattern) > MAX_REGEX_CHARS:
        raise _too_much(field, "characters in a pattern", MAX_REGEX_CHARS, len(pattern))
    if isinstance(least, int | float) and least > 1:
        # The engine counts a key that comes twice as two, who reads the answer as one.
        raise JobError(ErrorCode.INVALID_JOB, f"{field}: minProperties above 1 is not served")


def _too_much(field: str, what: str, limit: int, given: int) -> JobError:
    message = f"{field}: {what}: at most {limit}, not {given}"
    return JobError(ErrorCode.LIMIT_EXCEEDED, message, limit=limit, given=given)
