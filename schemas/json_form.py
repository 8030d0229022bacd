"""Records in JSON: for producers and readers that do not speak msgpack.

A record whose first byte, blanks aside, is `{` is JSON; no record in msgpack begins so. Its bounds
are those of msgpack, its meaning that of the same map there. Its replies are in JSON as well.
"""

import json
import re
from typing import Any, Final, NoReturn

import msgpack

from aril.schemas import limits
from aril.schemas.errors import DecodeError
from aril.schemas.form_errors import malformed, too_deep, too_much

_BLANKS: Final = b" \t\n\r"
# What costs memory, found outside of strings, before anything is built of it.
_PARTS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{,]', re.DOTALL)
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def is_json(data: bytes | None) -> bool:
    """Whether a record is in this form. Looks at its first bytes only."""
    return data is not None and data[:64].lstrip(_BLANKS)[:1] == b"{"


def to_json(record: bytes) -> bytes:
    """Return a record of ours, in msgpack, in JSON."""
    fields = msgpack.unpackb(record)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def parse_json(data: bytes) -> dict[str, Any]:
    """Return the map that `data` is. Raises DecodeError, by the reasons of msgpack."""
    _inspect(data)
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
    except DecodeError:
        raise
    except UnicodeDecodeError:
        raise malformed("invalid_utf8", "the record is not UTF-8") from None
    except RecursionError:
        raise too_deep() from None
    except ValueError:  # numbers of thousands of digits as well
        raise malformed("not_json", "the record is not well-formed JSON") from None
    if type(value) is not dict:
        raise malformed("not_a_map", "the record is not a map")
    return value


def _inspect(data: bytes) -> None:
    parts = containers = elements = 0
    for match in _PARTS.finditer(data):
        first = data[match.start()]
        if first == ord(","):
            elements += 1
        else:
            parts += 1
            containers += first != ord('"')
        if parts > limits.MAX_PARTS:
            raise too_much("too_many_parts", "maps, arrays, strings", limits.MAX_PARTS, parts)
        if containers > limits.MAX_CONTAINERS:
            most = limits.MAX_CONTAINERS
            raise too_much("too_many_containers", "maps and arrays", most, containers)
        if elements > limits.MAX_ELEMENTS:
            raise too_much("too_many_elements", "elements", limits.MAX_ELEMENTS, elements)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > limits.MAX_MAP_FIELDS:
        raise too_much("too_many_fields", "fields in a map", limits.MAX_MAP_FIELDS, len(pairs))
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise malformed("duplicate_key", "a map has the same key twice")
    for key, value in pairs:
        _check_text(key)
        _check_text(value)
    return fields


def _check_text(value: object) -> None:
    """Refuse halves of characters (a lone surrogate is no UTF-8). Maps were looked at before."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            if _LONE_SURROGATE.search(each):
                raise malformed("invalid_utf8", "a string has half a character")
        elif isinstance(each, list):
            waiting.extend(each)


def _no_constant(_: str) -> NoReturn:
    raise malformed("not_json", "NaN and infinities are no JSON")
