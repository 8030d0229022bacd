"""From untrusted bytes to one plain map, in bounded memory.

The size is checked first. Then, before any object is made, the headers are read in one pass: a
record whose maps and arrays promise more elements than it has bytes, or which has more parts than
`MAX_PARTS` or `MAX_CONTAINERS`, costs next to nothing. Only then does msgpack build the objects.
"""

import re
from typing import Any, Final, NamedTuple, NoReturn

import msgpack

from aril.schemas import limits
from aril.schemas.errors import DecodeError
from aril.schemas.form_errors import malformed, too_deep, too_much
from aril.schemas.json_form import is_json, parse_json

# A smaller record can promise and hold so little that msgpack may look at it first: even the worst
# one builds 3 MB for a moment (arrays within arrays, each promising as much as there are bytes).
_SMALL_BYTES: Final = 1_024

SHAPES: Final = frozenset(
    {"too_deep", "too_many_fields", "too_many_elements", "too_many_containers", "too_many_parts"}
)
"""The reasons of records that may be well-formed, and are past a bound of their shape."""

_CONTAINERS: Final = frozenset({dict, list})
_TEXT: Final = frozenset({str})


def unpack_map(data: bytes | None, max_bytes: int) -> dict[str, Any]:
    """Return the map that `data` is, its keys text, without duplicate keys or extension types.

    It may be JSON (`aril.schemas.json_form`), whose bounds and reasons are the same.
    DecodeError `limit_exceeded` past a bound, `invalid_job` for anything else that is not one
    well-formed map. `data` may be None, as the value of a Kafka record may be.
    """
    if not data:
        raise malformed("empty", "the record has no value")
    if len(data) > max_bytes:
        raise too_much("record_too_large", "bytes in the record", max_bytes, len(data))
    if is_json(data):
        fields = parse_json(data)
        _check_depth(fields)
        return fields
    if len(data) > _SMALL_BYTES:
        _inspect(data)
    value = _unpack(data)
    if type(value) is not dict:
        raise malformed("not_a_map", "the record is not a map")
    _check_depth(value)
    return value


def _unpack(data: bytes) -> Any:
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=False,
            object_pairs_hook=_unique_text_keys,
            ext_hook=_refuse_extension,
            max_str_len=len(data),
            max_bin_len=len(data),
            max_array_len=len(data),
            max_map_len=limits.MAX_MAP_FIELDS,
            max_ext_len=0,
        )
    except DecodeError:
        raise
    except UnicodeDecodeError:
        raise malformed("invalid_utf8", "a string is not UTF-8") from None
    except msgpack.ExtraData:
        raise malformed("trailing_bytes", "bytes follow the record") from None
    except msgpack.StackError:
        raise too_deep() from None
    except ValueError:
        # msgpack tells most other faults apart only in prose; the headers tell them exactly.
        _inspect(data)
        raise malformed("not_msgpack", "the record is not well-formed msgpack") from None


def _unique_text_keys(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    try:
        fields = dict(pairs)
    except TypeError:  # a map or an array as key
        raise malformed("key_not_text", "a map has a key that is not text") from None
    if not _TEXT.issuperset(map(type, fields)):
        raise malformed("key_not_text", "a map has a key that is not text")
    if len(fields) != len(pairs):
        raise malformed("duplicate_key", "a map has the same key twice")
    return fields


def _refuse_extension(_code: int, _data: bytes) -> NoReturn:
    raise malformed("extension_type", "extension types are not part of the contract")


def _check_depth(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(limits.MAX_DEPTH):
        below: list[Any] = []
        for parent in level:
            children = parent.values() if type(parent) is dict else parent
            if not _CONTAINERS.isdisjoint(map(type, children)):
                below += [child for child in children if type(child) in _CONTAINERS]
        if not below:
            return
        level = below
    raise too_deep()


class _Header(NamedTuple):
    """What follows a header byte: a length of `width` bytes, or `length` itself if width is 0.

    The length counts bytes of a string (`each` 0), elements of an array (1) or pairs of a map (2).
    """

    width: int
    length: int
    each: int


_PAIRS: Final = 2
_HEADERS: Final[dict[int, _Header]] = (
    {0x80 | n: _Header(0, n, _PAIRS) for n in range(16)}
    | {0x90 | n: _Header(0, n, 1) for n in range(16)}
    | {0xA0 | n: _Header(0, n, 0) for n in range(32)}
    | {0xC4 + n: _Header(1 << n, 0, 0) for n in range(3)}  # bin 8, 16, 32
    | {0xD9 + n: _Header(1 << n, 0, 0) for n in range(3)}  # str 8, 16, 32
    | {0xDC + n: _Header(2 << n, 0, 1) for n in range(2)}  # array 16, 32
    | {0xDE + n: _Header(2 << n, 0, _PAIRS) for n in range(2)}  # map 16, 32
)
_EXTENSIONS: Final = frozenset({0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8})
_NEVER_USED: Final = 0xC1
# Runs of integers, floats, booleans and nil, at the speed of the regex engine: a prompt of token
# ids is one run.
_SCALARS: Final = re.compile(
    rb"(?:[\x00-\x7f\xe0-\xff\xc0\xc2\xc3]|[\xcc\xd0].|[\xcd\xd1].{2}|[\xca\xce\xd2].{4}"
    rb"|[\xcb\xcf\xd3].{8})*+",
    re.DOTALL,
)


def _inspect(data: bytes) -> None:
    """Read the headers only; raise if they promise too much, are cut off or are not allowed."""
    size, at, parts, containers, elements = len(data), 0, 0, 0, 0
    while (at := _end_of_scalars(data, at)) < size:
        header = _HEADERS.get(data[at])
        if header is None:
            raise _unknown_header(data[at])
        width, length, each = header
        at += 1
        if width:
            length = int.from_bytes(data[at : at + width])
            at += width
        if each:
            containers += 1
            elements += length * each
        else:
            at += length
        parts += 1
        if max(at, elements) > size:
            raise malformed("truncated", "the record promises more than it holds")
        if each == _PAIRS and length > limits.MAX_MAP_FIELDS:
            raise too_much("too_many_fields", "fields in a map", limits.MAX_MAP_FIELDS, length)
        if elements > limits.MAX_ELEMENTS:
            most = limits.MAX_ELEMENTS
            raise too_much("too_many_elements", "elements", most, elements)
        if containers > limits.MAX_CONTAINERS:
            most = limits.MAX_CONTAINERS
            raise too_much("too_many_containers", "maps and arrays", most, containers)
        if parts > limits.MAX_PARTS:
            raise too_much("too_many_parts", "maps, arrays, strings", limits.MAX_PARTS, parts)


def _end_of_scalars(data: bytes, start: int) -> int:
    run = _SCALARS.match(data, start)
    return run.end() if run else start


def _unknown_header(byte: int) -> DecodeError:
    if byte in _EXTENSIONS:
        return malformed("extension_type", "extension types are not part of the contract")
    if byte == _NEVER_USED:
        return malformed("not_msgpack", "the record is not well-formed msgpack")
    return malformed("truncated", "the record promises more than it holds")
