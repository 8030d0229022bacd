"""JSON of which all that was read can be written again, by any writer.

Python's own reader takes half of a surrogate pair for text, 1e999 for a number, and what is nested
nearly as deep as its stack. Each of that fails later, where the caller can no longer be told.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final, NoReturn

from aril.schemas import limits

MAX_DEPTH: Final = limits.MAX_SCHEMA_DEPTH + 8
"""Of maps and arrays: as deep as a schema may be, and what stands around it."""
_HALF_OF_A_PAIR: Final = re.compile(r"\\u[dD][89a-fA-F]")
"""Of a whole one, too; without it there is no half."""


class BadJson(ValueError):  # noqa: N818 - named for what happened
    """What is no JSON, or says what not every writer can; the message is what it does: "is …"."""


def strict_json(data: bytes) -> object:
    """Return what `data` says, UTF-8 as JSON has to be. Raises `BadJson`."""
    try:
        text = data.decode()
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except BadJson:
        raise
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise BadJson("is not JSON") from None
    if _HALF_OF_A_PAIR.search(text) or text.count("{") + text.count("[") > MAX_DEPTH:
        _judge(value)
    return value


def _judge(value: object) -> None:
    """Look at each level of maps and arrays in turn."""
    level = [[value]]
    for _ in range(MAX_DEPTH + 1):
        within: list[list[object]] = []
        for each in level:
            for part in each:
                if isinstance(part, str):
                    _judge_text(part)
                elif isinstance(part, list):
                    within.append(part)
                elif isinstance(part, dict):
                    within.append([*part, *part.values()])
        level = within
    if level:
        raise _too_deep()


def _judge_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadJson("holds half of a surrogate pair, which is no text") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BadJson("holds a number that is too large for one")
    return number


def _no_number(_: str) -> NoReturn:
    raise BadJson("is not JSON")


def _too_deep() -> BadJson:
    return BadJson(f"is nested more than {MAX_DEPTH} deep")
