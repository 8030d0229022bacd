"""Whose a record is that is past a bound of its shape: as far as its first fields say so."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from aril.schemas import DecodeError, ErrorCode, decode_request, limits
from aril.schemas.first_fields import first_fields

WHO = {"v": 1, "kind": "job", "id": "j", "tenant": "acme", "reply_partition": 3}
NAMES = ("kind", "id", "tenant", "reply_partition")
FOUND = {name: WHO[name] for name in NAMES}


def nested(depth: int) -> bytes:
    """Return arrays within arrays."""
    return b"\x91" * depth + b"\xc0"


def record(*fields: tuple[str, Any], more: bytes = b"") -> bytes:
    """Return a map of fields, in this order, with one more whose value is bytes of msgpack."""
    count = len(fields) + bool(more)
    data = msgpack.Packer().pack_map_header(count)
    data += b"".join(msgpack.packb(name) + msgpack.packb(value) for name, value in fields)
    return bytes(data + (msgpack.packb("x") + more if more else b""))


TOO_MUCH = {
    "too_deep": nested(limits.MAX_DEPTH),
    "too_many_parts": msgpack.packb([""] * (limits.MAX_PARTS + 1)),
    "too_many_containers": msgpack.packb([[]] * (limits.MAX_CONTAINERS + 1)),
    "too_many_elements": msgpack.packb([0] * limits.MAX_ELEMENTS),
    "too_many_fields": msgpack.packb({str(n): n for n in range(limits.MAX_MAP_FIELDS + 1)}),
}


@pytest.mark.parametrize("reason", TOO_MUCH)
def test_a_record_past_a_bound_says_whose_it_is(reason: str) -> None:
    """Its tenant is told which bound, wherever in the record that was passed."""
    who = [*WHO.items()]
    behind = record(*who, more=TOO_MUCH[reason])
    before = b"\x86\xa1x" + TOO_MUCH[reason] + record(*who)[1:]
    for data in (behind, before):
        with pytest.raises(DecodeError) as caught:
            decode_request(data)
        error = caught.value
        assert (error.code, error.reason) == (ErrorCode.LIMIT_EXCEEDED, reason)
        assert error.limit is not None
        assert (error.kind, error.tenant, error.job) == ("job", "acme", "j")
        assert error.reply_partition == 3


def test_a_record_that_is_too_deep_for_msgpack_says_so_by_what_stands_before() -> None:
    """What is nested 5,000 deep cannot be passed over; fields behind it are not looked for."""
    assert first_fields(record(*WHO.items(), more=nested(5_000)), NAMES) == FOUND
    behind = b"\x86\xa1x" + nested(5_000) + record(*WHO.items())[1:]
    assert first_fields(behind, NAMES) == {}


def test_too_many_fields_of_the_record_itself_are_not_looked_at() -> None:
    """The first 64 are; a name behind those is not found."""
    many = [(f"f{n}", n) for n in range(limits.MAX_MAP_FIELDS)]
    assert first_fields(record(*WHO.items(), *many), NAMES) == FOUND
    assert first_fields(record(*many, *WHO.items()), NAMES) == {}


TWICE = [("tenant", "acme"), ("tenant", "zeta")]
WRONG = {
    "a name that is there twice": record(*TWICE),
    "twice, the first no text": record(("tenant", []), ("tenant", "zeta")),
    "bytes behind it": record(*WHO.items()) + b"\xc0",
    "cut off": record(*WHO.items())[:-1],
    "a key that is no text": b"\x82\x90\xc0" + record(("tenant", "acme"))[1:],
    "a key that is an array promising all": b"\x82\xdd\xff\xff\xff\xff",
    "no map": msgpack.packb([*FOUND.values()]),
    "a map of 4 G": b"\xdf\xff\xff\xff\xff",
    "never used": record(*WHO.items(), more=b"\xc1"),
    "a name that is not UTF-8": record(("tenant", "acme")).replace(b"acme", b"ac\xffe"),
}


@pytest.mark.parametrize("name", WRONG)
def test_of_what_is_not_well_formed_nobody_can_say_whose_it_is(name: str) -> None:
    """Nothing of it is believed, and nothing is raised."""
    assert first_fields(WRONG[name], NAMES) == {}


def test_only_texts_and_integers_are_returned() -> None:
    """A tenant that is a map is none, and no object is made of it."""
    fields = [("tenant", {"a": 1}), ("kind", None), ("id", 1.5), ("reply_partition", -1)]
    assert first_fields(record(*fields), NAMES) == {"reply_partition": -1}


@pytest.mark.parametrize("value", [[[]] * limits.MAX_CONTAINERS, {str(n): n for n in range(65)}])
def test_of_a_json_record_past_a_bound_nobody_is_told(value: object) -> None:
    """The reason is known; whose it is stays unread, since that would make the objects."""
    with pytest.raises(DecodeError) as caught:
        decode_request(json.dumps(WHO | {"x": value}).encode())
    error = caught.value
    assert error.code == ErrorCode.LIMIT_EXCEEDED
    assert (error.kind, error.tenant, error.job) == (None, None, None)
