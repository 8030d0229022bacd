"""Signed requests: what is signed, and the header that carries the signature. Bytes only, no keys.

Where tenants share one jobs topic, a record says by its signature whose it is. Ed25519 (RFC 8032)
over `signed_message`, which binds the request to its tenant, key, topic, partition, record key and
time; the header names tenant, key id and time, so that nothing of the record has to be decoded
before the signature was verified. Why it is so: docs/decisions/013-signed-jobs.md.
"""

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aril.schemas import names
from aril.schemas.errors import ErrorCode, JobError

SIGNATURE_HEADER: Final = "aril-signature"
SIGNATURE_BYTES: Final = 64
MAX_HEADER_BYTES: Final = 274
"""The longest header of version 1: two names of 63, a time of 15 digits, 128 of the signature."""
KEY_ID_PATTERN: Final = names.NAME_PATTERN

_CONTEXT: Final = b"aril-signed-request-v1"
_NAME: Final = rb"[a-z0-9][a-z0-9-]{0,62}"
_HEADER: Final = re.compile(rb"1\.(%b)\.(%b)\.([1-9][0-9]{0,14})\.([0-9a-f]{128})" % (_NAME, _NAME))
_OTHER_VERSION: Final = re.compile(rb"(?!1\.)[0-9]{1,9}\..*", re.DOTALL)
_KEY_ID: Final = re.compile(KEY_ID_PATTERN)
_LENGTH: Final = struct.Struct(">I")
_PARTITION: Final = struct.Struct(">I")
_TIME: Final = struct.Struct(">Q")


class SignatureFault(StrEnum):
    """Why a record is not taken for its tenant's; the closed set of these dead-letter reasons."""

    UNSIGNED = "unsigned"
    MALFORMED = "signature_malformed"
    VERSION = "signature_version"
    KEY_UNKNOWN = "signature_key_unknown"
    OUT_OF_TIME = "signature_out_of_time"
    INVALID = "signature_invalid"


class SignatureError(JobError):
    """A record that nobody can be shown to have signed: nobody is told of it.

    The message is one of a few fixed texts and holds nothing that the record said but numbers.
    """

    def __init__(
        self,
        fault: SignatureFault,
        message: str,
        *,
        limit: float | None = None,
        given: float | None = None,
    ) -> None:
        super().__init__(ErrorCode.INVALID_JOB, message, limit=limit, given=given)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class SignatureHeader:
    """What the header says: who signed with which key, when (ms since the epoch), and how."""

    tenant: str
    key_id: str
    signed_ms: int
    signature: bytes

    def __bytes__(self) -> bytes:
        text = f"1.{self.tenant}.{self.key_id}.{self.signed_ms}.{self.signature.hex()}"
        return text.encode()

    @classmethod
    def parse(cls, data: bytes) -> "SignatureHeader":
        """Read a header's value, in one form only. SignatureError if it is not exactly that."""
        found = _HEADER.fullmatch(data) if len(data) <= MAX_HEADER_BYTES else None
        if found is None or not names.is_tenant(tenant := found[1].decode()):
            if _OTHER_VERSION.fullmatch(data):
                raise SignatureError(SignatureFault.VERSION, "signature: only version 1 is known")
            raise SignatureError(SignatureFault.MALFORMED, "signature: not a header of version 1")
        return cls(tenant, found[2].decode(), int(found[3]), bytes.fromhex(found[4].decode()))


def is_key_id(text: str) -> bool:
    """Whether `text` can name a tenant's key."""
    return _KEY_ID.fullmatch(text) is not None


def find_signature(headers: Iterable[tuple[str, bytes | None]]) -> SignatureHeader:
    """Return what a record's one signature header says.

    SignatureError if there is none, more than one (readers could disagree which counts), or it is
    malformed.
    """
    found = [value for name, value in headers if name == SIGNATURE_HEADER]
    if not found:
        raise SignatureError(SignatureFault.UNSIGNED, f"the record has no {SIGNATURE_HEADER}")
    if len(found) > 1 or found[0] is None:
        raise SignatureError(SignatureFault.MALFORMED, f"not one {SIGNATURE_HEADER} with a value")
    return SignatureHeader.parse(found[0])


def signed_message(
    *,
    tenant: str,
    key_id: str,
    topic: str,
    partition: int,
    key: bytes,
    signed_ms: int,
    value: bytes,
) -> bytes:
    """Return the bytes that are signed: `aril-signed-request-v1`, then each field with its length.

    In this order; lengths are 4 bytes, `partition` 4 and `signed_ms` 8, all big-endian. Every
    field has its length before it, so no two requests have the same message.
    """
    fields = (
        tenant.encode(),
        key_id.encode(),
        topic.encode(),
        _PARTITION.pack(partition),
        key,
        _TIME.pack(signed_ms),
        value,
    )
    parts = [_CONTEXT]
    for field in fields:
        parts += (_LENGTH.pack(len(field)), field)
    return b"".join(parts)
