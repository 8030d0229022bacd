"""Bytes from an enemy: a typed error or a value, in bounded memory, and no echo of them."""

import contextlib
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aril.schemas import (
    DecodeError,
    Job,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    limits,
)
from tests.support.records import REPLIES, REQUESTS

Decode = Callable[[bytes | None], object]

BOTH = pytest.mark.parametrize("decode", [decode_request, decode_reply])
JOB = encode_request(Job(id="j", tenant="t", prompt="p"))

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


def value_or_typed_error(decode: Decode, data: bytes | None) -> None:
    """Decode; anything but a value or a DecodeError fails the test."""
    with contextlib.suppress(DecodeError):
        decode(data)


def peak_bytes(decode: Decode, data: bytes) -> int:
    """Return the most memory that decoding `data` held at once."""
    tracemalloc.start()
    try:
        value_or_typed_error(decode, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@BOTH
@given(st.binary(max_size=200))
def test_random_bytes(decode: Decode, data: bytes) -> None:
    """Noise is refused in order."""
    value_or_typed_error(decode, data)


@BOTH
@given(TREES)
def test_random_values(decode: Decode, value: object) -> None:
    """So is any well-formed msgpack that is no record."""
    value_or_typed_error(decode, msgpack.packb(value))


@BOTH
@given(st.data(), st.one_of(REQUESTS.map(encode_request), REPLIES.map(encode_reply)))
def test_damaged_records(decode: Decode, data: st.DataObject, record: bytes) -> None:
    """A good record with bits flipped, cut off or with bytes put in between is harmless."""
    damaged = bytearray(record)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    at = data.draw(st.integers(0, len(damaged)))
    damaged[at:at] = data.draw(st.binary(max_size=4))
    value_or_typed_error(decode, bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    value_or_typed_error(decode, bytes(damaged))


@given(REQUESTS, st.sampled_from(["sampling", "messages", "metadata", "token_ids", "id"]), TREES)
def test_one_field_is_anything(request_: Job, field: str, value: object) -> None:
    """A good request with one field replaced by any value is harmless."""
    fields = msgpack.unpackb(encode_request(request_)) | {field: value}
    value_or_typed_error(decode_request, msgpack.packb(fields))


@given(REPLIES, st.data(), TREES)
def test_one_reply_field_is_anything(record: Any, data: st.DataObject, value: object) -> None:
    """The same for replies."""
    fields = msgpack.unpackb(encode_reply(record))
    field = data.draw(st.sampled_from(sorted(fields)))
    value_or_typed_error(decode_reply, msgpack.packb(fields | {field: value}))


@given(st.binary(max_size=30))
@example(b"")
@example(b"\x91" * 30)
def test_small_and_large_are_judged_alike(tail: bytes) -> None:
    """Reading the headers first, as for large records, changes no verdict on a value."""
    small = JOB[:1] + JOB[1:] + tail
    padded = bytes([JOB[0] + 1]) + JOB[1:] + b"\xa1x" + msgpack.packb("x" * 2_000) + tail

    def accepted(data: bytes) -> bool:
        try:
            decode_request(data)
        except DecodeError:
            return False
        return True

    assert accepted(small) == accepted(padded) == (not tail)


def nested(opening: bytes, times: int) -> bytes:
    """Return a map whose field holds `opening` over and over."""
    return b"\x81\xa1x" + opening * times


HUGE = {
    "arrays in arrays, each promising all that msgpack allows": nested(
        b"\xdd\x00\x0f\x00\x00", 1_000
    ),
    "small arrays in arrays, each promising as much as there are bytes": nested(
        b"\xdc\x03\xe0", 330
    ),
    "arrays in arrays, each promising just enough": nested(b"\xdc\xff\xff", 1_000)
    + b"\x00" * 900_000,
    "maps in maps": nested(b"\x81\xa0", 400_000),
    "a million empty maps": nested(b"\xdd\x00\x0f\x00\x00", 1) + b"\x80" * 0xF0000,
    "a million empty arrays": nested(b"\xdd\x00\x0f\x00\x00", 1) + b"\x90" * 0xF0000,
    "a string of 4 GB": nested(b"\xdb\xff\xff\xff\xff", 1),
    "bytes of 4 GB": nested(b"\xc6\xff\xff\xff\xff", 1),
    "an array of 4 G": nested(b"\xdd\xff\xff\xff\xff", 1),
    "a map of 4 G": nested(b"\xdf\xff\xff\xff\xff", 1),
    "an extension of 4 GB": nested(b"\xc9\xff\xff\xff\xff\x00", 1),
    "as deep as bytes": b"\x91" * 999_999 + b"\x90",
    "too large": b"\xc0" * 5_000_000,
    "messages that are numbers": JOB[:-9] + b"\xa8messages\xdd\x00\x0a\x00\x00" + b"\x00" * 0xA0000,
    "prompt of half a million booleans": JOB[:-9]
    + b"\xa9token_ids\xdd\x00\x08\x00\x00"
    + b"\xc3" * 0x80000,
    "stop of empty strings": JOB[:-9]
    + b"\xa8sampling\x81\xa4stop\xdd\x00\x08\x00\x00"
    + b"\xa0" * 0x80000,
}


@BOTH
@pytest.mark.parametrize("name", HUGE)
def test_memory_is_bounded(decode: Decode, name: str) -> None:
    """However much bytes promise, decoding holds at most a small multiple of the record's bound."""
    assert peak_bytes(decode, HUGE[name]) < 8 * limits.MAX_REQUEST_BYTES


def test_memory_of_a_good_large_job_is_bounded_too() -> None:
    """The bound above is not reached by refusing everything."""
    job = Job(id="j", tenant="t", token_ids=(70_000,) * limits.MAX_PROMPT_TOKENS)
    data = encode_request(job)
    assert peak_bytes(decode_request, data) < 8 * limits.MAX_REQUEST_BYTES
    assert decode_request(data) == job


@BOTH
def test_no_value(decode: Decode) -> None:
    """A record without a value, a tombstone in Kafka's words, is a typed error."""
    with pytest.raises(DecodeError) as caught:
        decode(None)
    assert caught.value.reason == "empty"


WORDS = "correct-horse"


def with_words() -> st.SearchStrategy[dict[str, Any]]:
    """Jobs that are wrong somewhere and hold a tenant's words in many places."""
    words = st.sampled_from([WORDS, WORDS * 50_000, [WORDS], {WORDS: WORDS}, WORDS.encode()])
    turn = st.fixed_dictionaries({"role": words, "content": words})
    return st.fixed_dictionaries(
        {"v": st.just(1), "kind": st.just("job"), "id": st.just("j"), "tenant": st.just("t")},
        optional={
            "adapter": words,
            "prompt": words,
            "messages": st.lists(turn, max_size=2) | words,
            "metadata": st.dictionaries(st.just(WORDS), words) | words,
            "priority": words,
            "sampling": st.fixed_dictionaries(
                {}, optional={"stop": st.lists(words, max_size=20), "seed": words}
            ),
            "reply_from": words,
        },
    )


@given(with_words())
@example({"v": 1, "kind": "job", "id": "j", "tenant": "t", "prompt": WORDS * 50_000})
def test_errors_do_not_echo(fields: dict[str, Any]) -> None:
    """No error says a word of what a tenant wrote."""
    try:
        decode_request(msgpack.packb(fields))
    except DecodeError as error:
        said = [str(error), repr(error), error.reason, error.limit, error.given, error.args]
        assert WORDS not in repr(said)


@pytest.mark.xfail(
    (3, 12) <= sys.version_info < (3, 12, 6),
    reason="CPython keeps what msgpack interns: docs/decisions/010",
)
def test_keys_do_not_stay_in_memory() -> None:
    """Keys that never come again do not stay in memory."""

    def send(start: int) -> None:
        for batch in range(start, start + 20):
            fields = {f"key-{batch}-{n}-{'x' * 500}": n for n in range(60)}
            value_or_typed_error(decode_request, msgpack.packb({**fields, "v": 1}))

    tracemalloc.start()
    try:
        send(0)
        before = tracemalloc.get_traced_memory()[0]
        send(100)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 100_000


@pytest.mark.parametrize(
    "fields",
    [
        {"x": [{}] * 2_500},
        {"x": ["", 0] * 8_000},
        {"x": [0] * 990_000},
        {"x": [None] * 900_000, "y": [{"a": 0}] * 2_400, "z": ["e"] * 5_000},
        {"x": [{}] * 900_000},
        {"messages": [{"role": "user", "content": "?"}] * 1_024},
        {"token_ids": [2**31 - 1] * 131_072},
        {"token_ids": [0] * 990_000},
    ],
)
def test_no_record_takes_long(fields: dict[str, Any]) -> None:
    """The slowest records we know, valid or not, by calls: a million entries are not one each."""
    data = msgpack.packb({"v": 1, "kind": "job", "id": "j", "tenant": "t", **fields})
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        value_or_typed_error(decode_request, data)
    finally:
        sys.setprofile(None)
    assert calls < 100_000  # and their returns; 80,783 the most that was seen
