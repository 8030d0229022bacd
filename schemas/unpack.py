"""From untrusted bytes to one plain map, in bounded memory.

The size is checked first. Then, before any object is made, the headers are read in one pass: a
record whose arrays promise more elements than it has bytes, or which holds more containers than
`MAX_CONTAINERS`, costs nothing. Only then msgpack builds the objects.
"""

import re
from typing import Any, Final, NoReturn

import msgpack

from schemas import limits
from schemas.errors import DecodeError, ErrorCode

# Below this size even the worst record builds only a few megabytes for a moment.
_SMALL_BYTES: Final = 1_024

# Runs of integers, floats, booleans and nil are skipped at the speed of the regex engine.
_SCALARS: Final = re.compile(
    rb"(?:[\x00-\x7f\xe0-\xff\xc0\xc2\xc3]|[\xcc\xd0].|[\xcd\xd1].{2}|[\xca\xce\xd2].{4}"
    rb"|[\xcb\xcf\xd3].{8})*+",
    re.DOTALL,
)
# Header byte → bytes of its length field.
_SIZED_STRINGS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_SIZED_CONTAINERS: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
_EXTENSIONS: Final = frozenset({0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8})


def unpack_map(data: bytes | None, max_bytes: int) -> dict[str, Any]:
    """Return the map that `data` is, its keys text, without duplicate keys or extension types.

    DecodeError `limit_exceeded` past a bound, `invalid_job` for anything else that is not one
    well-formed map. `data` may be None, as a Kafka record's value may be.
    """
    if not data:
        raise malformed("empty", "the record has no value")
    if len(data) > max_bytes:
        raise _too_big("record_too_large", "bytes in the record", max_bytes, len(data))
    if len(data) > _SMALL_BYTES:
        _inspect(data)
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_unique,
            ext_hook=_refuse_extension,
            max_str_len=max_bytes,
            max_bin_len=max_bytes,
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
        raise _too_deep() from None
    except ValueError:
        _inspect(data)
        raise malformed("not_msgpack", "the record is not a well-formed msgpack map") from None
    if type(value) is not dict:
        raise malformed("not_a_map", "the record is not a map")
    _check_depth(value)
    return value


def malformed(reason: str, message: str) -> DecodeError:
    """Make the error for bytes that break the format."""
    return DecodeError(ErrorCode.INVALID_JOB, message, reason=reason)


def _too_big(reason: str, what: str, limit: int, given: int) -> DecodeError:
    message = f"{what}: at most {limit}, not {given}"
    return DecodeError(ErrorCode.LIMIT_EXCEEDED, message, reason=reason, limit=limit, given=given)


def _too_deep() -> DecodeError:
    message = f"maps and arrays are nested deeper than {limits.MAX_DEPTH}"
    return DecodeError(ErrorCode.LIMIT_EXCEEDED, message, reason="too_deep", limit=limits.MAX_DEPTH)


def _unique(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise malformed("duplicate_key", "a map has the same key twice")
    for key in fields:
        if type(key) is not str:
            raise malformed("key_not_text", "a map has a key that is not text")
    return fields


def _refuse_extension(_code: int, _data: bytes) -> NoReturn:
    raise malformed("extension_type", "extension types are not part of the contract")


def _inspect(data: bytes) -> None:
    """Read the headers only; raise if what they promise is too much, cut off or not allowed."""
    size, at, containers, promised = len(data), 0, 0, 0
    while True:
        run = _SCALARS.match(data, at)
        assert run is not None  # noqa: S101 - the pattern matches the empty string
        at = run.end()
        if at >= size:
            return
        head = data[at]
        at += 1
        if 0xA0 <= head <= 0xBF:
            at += head & 0x1F
        elif width := _SIZED_STRINGS.get(head):
            at += width + int.from_bytes(data[at : at + width])
        elif head in _EXTENSIONS:
            _refuse_extension(head, b"")
        elif 0x80 <= head <= 0x9F:
            containers += 1
            promised += (head & 0x0F) * (2 if head < 0x90 else 1)
        elif head in _SIZED_CONTAINERS:
            width, each = _SIZED_CONTAINERS[head]
            length = int.from_bytes(data[at : at + width])
            at += width
            containers += 1
            promised += length * each
            if each == 2 and promised <= size and length > limits.MAX_MAP_FIELDS:
                raise _too_big("too_many_fields", "fields in a map", limits.MAX_MAP_FIELDS, length)
        elif head == 0xC1:
            raise malformed("not_msgpack", "the record is not a well-formed msgpack map")
        else:
            at = size + 1  # a number that is cut off
        if at > size or promised > size:
            raise malformed("truncated", "the record promises more than it holds")
        if containers > limits.MAX_CONTAINERS:
            raise _too_big(
                "too_many_containers", "maps and arrays", limits.MAX_CONTAINERS, containers
            )


def _check_depth(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(limits.MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise _too_deep()
