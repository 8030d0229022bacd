"""Bytes that are no record at all, and records past a bound that takes many bytes to pass."""

import msgpack

from aril.schemas import limits
from aril.schemas.make_vectors.build import (
    JOB,
    MISSING,
    NOBODY,
    OWNER,
    Fields,
    Vector,
    pack,
    refusal,
    vector,
)


def _bytes(name: str, meaning: str, data: bytes, reason: str) -> Vector:
    return vector(name, meaning, data, refusal("invalid_job", reason, **NOBODY))


def bad_bytes() -> list[Vector]:
    """Not one well-formed msgpack map with text keys."""
    whole = pack(JOB)

    def extended(value: bytes) -> bytes:
        return bytes([whole[0] + 1]) + whole[1:] + b"\xa1x" + value

    return [
        _bytes("no bytes", "Also a record without a value.", b"", "empty"),
        _bytes("cut off", "The last byte is missing.", whole[:-1], "truncated"),
        _bytes("trailing byte", "A record is exactly one map.", whole + b"\x00", "trailing_bytes"),
        _bytes("not a map", "An array.", b"\x91\x01", "not_a_map"),
        _bytes("byte that msgpack never uses", "0xc1.", b"\xc1", "not_msgpack"),
        _bytes(
            "duplicate key", "`v` twice, though equal.", b"\x82\xa1v\x01\xa1v\x01", "duplicate_key"
        ),
        _bytes(
            "duplicate key inside",
            "In an unknown field, too.",
            extended(b"\x82\xa1a\x01\xa1a\x02"),
            "duplicate_key",
        ),
        _bytes("key of bytes", "Keys are str.", extended(b"\x81\xc4\x01a\x01"), "key_not_text"),
        _bytes("key a number", "Keys are str.", extended(b"\x81\x01\x01"), "key_not_text"),
        _bytes("invalid UTF-8", "In an unknown field, too.", extended(b"\xa1\xff"), "invalid_utf8"),
        _bytes(
            "surrogate", "UTF-8 has no surrogates.", extended(b"\xa3\xed\xa0\x80"), "invalid_utf8"
        ),
        _bytes("extension type", "fixext 1.", extended(b"\xd4\x05\x00"), "extension_type"),
        _bytes(
            "empty extension", "ext 8 of no bytes.", extended(b"\xc7\x00\x05"), "extension_type"
        ),
        _bytes(
            "timestamp",
            "An extension type, too.",
            extended(b"\xd6\xff\x00\x00\x00\x00"),
            "extension_type",
        ),
        _bytes(
            "huge array",
            "Promises 4,294,967,295 elements.",
            extended(b"\xdd\xff\xff\xff\xff"),
            "truncated",
        ),
        _bytes(
            "huge map",
            "Promises 4,294,967,295 fields.",
            extended(b"\xdf\xff\xff\xff\xff"),
            "truncated",
        ),
        _bytes(
            "huge string",
            "Promises 4,294,967,295 bytes.",
            extended(b"\xdb\xff\xff\xff\xff"),
            "truncated",
        ),
        vector(
            "17 deep",
            "16 at most, the record itself counted; whose it is stands in its own fields.",
            extended(b"\x91" * 15 + b"\x90"),
            refusal("limit_exceeded", "too_deep", **OWNER),
        ),
    ]


def long_records() -> list[Vector]:
    """Bounds that take many bytes to pass: `hex`, then `repeat.hex` so many times."""

    def long(
        name: str, meaning: str, head: bytes, repeat: tuple[bytes, int], expect: Fields
    ) -> Vector:
        return vector(name, meaning, head, expect, repeat=repeat)

    def refused(reason: str, limit: int, given: int) -> Fields:
        return refusal("limit_exceeded", reason, **NOBODY, limit=limit, given=given)

    start = pack(JOB | {"prompt": MISSING})
    room = bytes([start[0] + 1]) + start[1:]
    chars, tokens = limits.MAX_PROMPT_CHARS, limits.MAX_PROMPT_TOKENS
    prompt = room + msgpack.packb("prompt") + b"\xdb"
    token_ids = room + msgpack.packb("token_ids") + b"\xdd"
    later = room + msgpack.packb("later")
    return [
        long(
            "prompt too long",
            "500,001 times x.",
            prompt + (chars + 1).to_bytes(4),
            (b"x", chars + 1),
            refusal("prompt_too_long", "string_too_long", **OWNER, limit=chars, given=chars + 1),
        ),
        long(
            "too many token ids",
            "131,073 zeros.",
            token_ids + (tokens + 1).to_bytes(4),
            (b"\x00", tokens + 1),
            refusal("prompt_too_long", "too_long", **OWNER, limit=tokens, given=tokens + 1),
        ),
        long(
            "record too large",
            "1,000,001 bytes.",
            b"",
            (b"\x00", 1_000_001),
            refused("record_too_large", 1_000_000, 1_000_001),
        ),
        long(
            "too many parts",
            "An array of 8,192 empty strings, in a map; numbers are no parts.",
            later + b"\xdc\x20\x00",
            (b"\xa0", 8_192),
            refusal("limit_exceeded", "too_many_parts", **OWNER, limit=limits.MAX_PARTS),
        ),
        long(
            "too many maps and arrays",
            "An array of 2,560 empty maps, in a map, in a field that nobody knows.",
            later + b"\xdc\x0a\x00",
            (b"\x80", 2_560),
            refusal("limit_exceeded", "too_many_containers", **OWNER, limit=limits.MAX_CONTAINERS),
        ),
        long(
            "too many elements",
            "An array of 262,144 zeros, in an unknown field; the other fields count, too.",
            later + b"\xdd\x00\x04\x00\x00",
            (b"\x00", 262_144),
            refusal("limit_exceeded", "too_many_elements", **OWNER, limit=limits.MAX_ELEMENTS),
        ),
        long(
            "too many fields",
            "A map of 65 fields.",
            b"\xde\x00\x41",
            (b"\xa0\x00", 65),
            refused("too_many_fields", 64, 65),
        ),
    ]
