"""Signed requests: what is signed, the header, and records that are nobody's."""

from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aril.schemas.make_vectors.build import JOB, pack
from aril.schemas.signature import (
    SIGNATURE_BYTES,
    SIGNATURE_HEADER,
    SignatureHeader,
    signed_message,
)

SEED: Final = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
"""The first key of RFC 8032, 7.1: everybody has its private half. Never trust it."""
KEY_ID: Final = "test-only"
SIGNED_MS: Final = 1_790_000_000_000
AGE_MS: Final = 600_000
RECORD: Final = {"topic": "jobs", "partition": 3, "key": "j1", "timestamp_ms": SIGNED_MS + 5}

Fields = dict[str, Any]


def signature_vectors() -> list[Fields]:
    """Return records with their headers, and whose they are."""
    header = _header().decode()
    body = header.rpartition(".")[0]
    zeros = "0" * 2 * SIGNATURE_BYTES
    return [
        _vector("signed job", "What a client sends.", {}),
        _vector("signed cancel", "The same for a cancel.", {"kind": "cancel", "prompt": None}),
        _vector("oldest", "As long before the record as it may be.", {}, **_late(AGE_MS)),
        _vector("of a fast clock", "As long after it.", {}, **_late(-AGE_MS)),
        _refused("too old", "A millisecond more.", "signature_out_of_time", **_late(AGE_MS + 1)),
        _refused("too fast", "Likewise.", "signature_out_of_time", **_late(-AGE_MS - 1)),
        _refused("no header", "Nobody's.", "unsigned", headers=[]),
        _refused("two headers", "Which counts?", "signature_malformed", headers=[header] * 2),
        _refused("empty header", "Nothing in it.", "signature_malformed", headers=[""]),
        _refused(
            "upper case", "One form only.", "signature_malformed", headers=[f"{body}.{'AB' * 64}"]
        ),
        _refused(
            "leading zero",
            "One form only.",
            "signature_malformed",
            headers=[header.replace(f".{SIGNED_MS}.", f".0{SIGNED_MS}.")],
        ),
        _refused("line end", "Nothing follows.", "signature_malformed", headers=[f"{header}\n"]),
        _refused("version 2", "Not known yet.", "signature_version", headers=[f"2{header[1:]}"]),
        _refused(
            "another tenant",
            "It has no such key.",
            "signature_key_unknown",
            headers=[header.replace(".acme.", ".blackbeard.")],
        ),
        _refused(
            "another time",
            "The time is signed.",
            "signature_invalid",
            headers=[header.replace(f".{SIGNED_MS}.", f".{SIGNED_MS + 1}.")],
        ),
        _refused("zeros", "No signature.", "signature_invalid", headers=[f"{body}.{zeros}"]),
        _refused("another partition", "It is signed.", "signature_invalid", partition=4),
        _refused("another topic", "It is signed.", "signature_invalid", topic="jobs-2"),
        _refused("another key", "It is signed.", "signature_invalid", key="j2"),
        _refused(
            "another value",
            "It is signed.",
            "signature_invalid",
            value=pack(JOB | {"prompt": "Ho"}),
        ),
    ]


def _value(fields: Fields) -> bytes:
    return pack({name: value for name, value in (JOB | fields).items() if value is not None})


def _message(value: bytes) -> bytes:
    return signed_message(
        tenant="acme",
        key_id=KEY_ID,
        topic=str(RECORD["topic"]),
        partition=3,
        key=b"j1",
        signed_ms=SIGNED_MS,
        value=value,
    )


def _header(fields: Fields | None = None) -> bytes:
    signature = Ed25519PrivateKey.from_private_bytes(SEED).sign(_message(_value(fields or {})))
    return bytes(SignatureHeader("acme", KEY_ID, SIGNED_MS, signature))


def _late(milliseconds: int) -> Fields:
    return {"timestamp_ms": SIGNED_MS + milliseconds}


def _vector(name: str, meaning: str, fields: Fields, **record: Any) -> Fields:
    """Return a record that is acme's."""
    value = _value(fields)
    return {
        "name": name,
        "meaning": meaning,
        "hex": value.hex(),
        "record": RECORD | record,
        "headers": [[SIGNATURE_HEADER, _header(fields).decode()]],
        "age_ms": AGE_MS,
        "signed": _message(value).hex(),
        "expect": {"signer": "acme"},
    }


def _refused(
    name: str,
    meaning: str,
    reason: str,
    *,
    headers: list[str] | None = None,
    value: bytes | None = None,
    **record: Any,
) -> Fields:
    """Return a record that is nobody's."""
    texts = [_header().decode()] if headers is None else headers
    return {
        "name": name,
        "meaning": meaning,
        "hex": (_value({}) if value is None else value).hex(),
        "record": RECORD | record,
        "headers": [[SIGNATURE_HEADER, text] for text in texts],
        "age_ms": AGE_MS,
        "expect": {"reason": reason},
    }


def key_file() -> Fields:
    """Return the one key of these vectors, both halves."""
    private = Ed25519PrivateKey.from_private_bytes(SEED)
    return {
        "warning": "The first key of RFC 8032, 7.1. Everybody has it: for tests only.",
        "tenant": "acme",
        "key_id": KEY_ID,
        "private": SEED.hex(),
        "public": private.public_key().public_bytes_raw().hex(),
    }
