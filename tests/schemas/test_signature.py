"""The bytes of signed requests: the message has one reading, the header one form."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aril.schemas
from aril.schemas.signature import (
    MAX_HEADER_BYTES,
    SIGNATURE_BYTES,
    SIGNATURE_HEADER,
    SignatureError,
    SignatureFault,
    SignatureHeader,
    find_signature,
    signed_message,
)
from tests.support.records import NAMES

VECTORS = json.loads(
    (Path(aril.schemas.__file__).parent / "vectors" / "signatures.json").read_text()
)
HEADERS = st.builds(
    SignatureHeader,
    tenant=NAMES,
    key_id=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
    signed_ms=st.integers(1, 10**15 - 1),
    signature=st.binary(min_size=SIGNATURE_BYTES, max_size=SIGNATURE_BYTES),
)
# Fields that would run together, were their lengths not signed.
PARTS = st.sampled_from(["", "a", "aa", "a\0", "\0\0\0\1a"])
MESSAGES = st.fixed_dictionaries(
    {
        "tenant": PARTS,
        "key_id": PARTS,
        "topic": PARTS,
        "partition": st.integers(0, 2),
        "key": PARTS.map(str.encode),
        "signed_ms": st.integers(0, 2),
        "value": PARTS.map(str.encode),
    }
)


def fault_of(*values: bytes | None) -> SignatureFault:
    """Return why headers with these values are refused."""
    with pytest.raises(SignatureError) as caught:
        find_signature([("content-type", b"x"), *((SIGNATURE_HEADER, each) for each in values)])
    return caught.value.fault


@given(HEADERS)
def test_a_header_is_read_as_it_was_written(header: SignatureHeader) -> None:
    """Every header comes back the same, and within its bound."""
    assert len(bytes(header)) <= MAX_HEADER_BYTES
    assert find_signature([(SIGNATURE_HEADER, bytes(header))]) == header


@given(HEADERS, st.data())
def test_a_header_has_one_form(header: SignatureHeader, data: st.DataObject) -> None:
    """A header that differs in a byte is another header, or none: never the same one twice."""
    good = bytearray(bytes(header))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    read = None
    with contextlib.suppress(SignatureError):
        read = SignatureHeader.parse(bytes(good))
    assert read != header
    assert read is None or bytes(read) == bytes(good)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_typed_refusal(data: bytes) -> None:
    """Whatever stands in the header, it is malformed or of another version."""
    assert fault_of(data) in {SignatureFault.MALFORMED, SignatureFault.VERSION}


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ((), SignatureFault.UNSIGNED),
        ((None,), SignatureFault.MALFORMED),
        ((b"",), SignatureFault.MALFORMED),
        ((b"1." * 500_000,), SignatureFault.MALFORMED),
        ((b"2.whatever\n",), SignatureFault.VERSION),
        ((b"1.shared.k.1." + b"0" * 128,), SignatureFault.MALFORMED),
        ((b"1.acme.k.1." + b"0" * 128,) * 2, SignatureFault.MALFORMED),
    ],
)
def test_what_is_not_one_good_header(
    values: tuple[bytes | None, ...], fault: SignatureFault
) -> None:
    """None, two, a megabyte, a later version, a reserved name: each has its reason."""
    assert fault_of(*values) is fault


@given(MESSAGES, MESSAGES)
def test_two_requests_never_have_one_message(one: dict[str, Any], other: dict[str, Any]) -> None:
    """What is signed can be read in one way only."""
    assert (signed_message(**one) == signed_message(**other)) == (one == other)


@pytest.mark.parametrize(
    "vector",
    [pytest.param(each, id=each["name"]) for each in VECTORS["vectors"] if "signed" in each],
)
def test_vectors_say_what_is_signed(vector: dict[str, Any]) -> None:
    """The bytes signed are the vector's, made of the header and the record."""
    [(name, text)] = vector["headers"]
    header = find_signature([(name, text.encode())])
    record = vector["record"]
    message = signed_message(
        tenant=header.tenant,
        key_id=header.key_id,
        topic=record["topic"],
        partition=record["partition"],
        key=record["key"].encode(),
        signed_ms=header.signed_ms,
        value=bytes.fromhex(vector["hex"]),
    )
    assert message.hex() == vector["signed"]
