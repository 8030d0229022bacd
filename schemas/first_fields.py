"""Whose is a record that is too much to be decoded? Its own first fields say so.

Looked at are the first `MAX_MAP_FIELDS` fields of the record. What is not asked for is passed over
by msgpack itself, without an object being made.
"""

from collections.abc import Collection
from typing import Any, Final

import msgpack

from aril.schemas import limits

# The bytes that strings and integers begin with.
_TEXTS: Final = frozenset({*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB})
_NUMBERS: Final = frozenset({*range(0x80), *range(0xCC, 0xD4), *range(0xE0, 0x100)})


def first_fields(data: bytes, names: Collection[str]) -> dict[str, Any]:
    """Return the fields of these names whose value is a text or an integer.

    Nothing, if a name stands there twice, or if what is looked at is no well-formed map. Of a
    record whose fields are nested too deep to be passed over, those before them are returned.
    """
    found: dict[str, Any] = {}
    met: set[str] = set()
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    try:
        fields = unpacker.read_map_header()
        for _ in range(min(fields, limits.MAX_MAP_FIELDS)):
            if data[unpacker.tell()] not in _TEXTS:
                return {}
            name = unpacker.unpack()
            if name in met:
                return {}
            if name in names:
                met.add(name)
            if name in names and data[unpacker.tell()] in _TEXTS | _NUMBERS:
                found[name] = unpacker.unpack()
            else:
                unpacker.skip()
    except (msgpack.StackError, RecursionError):  # the second where msgpack is all Python
        return found
    except (ValueError, IndexError, msgpack.UnpackException):
        return {}
    whole = fields > limits.MAX_MAP_FIELDS or unpacker.tell() == len(data)
    return found if whole else {}
