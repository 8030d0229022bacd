"""A conflict: to whoever sent a job whose id another job has, that this one is not answered.

It names the record that it is about by a hash of its value, which only its sender can know of
another one than the first. `reply_from` is where that record's sender began to read, for readers
that know no more than the place; it is absent where the first job's answer begins there too.
"""

import hashlib
import re
from typing import Final, NamedTuple

from aril.schemas.notice import REPLY_FROM, decode_notice, encode_notice, is_offset

KIND: Final = "conflict"
SHA256: Final = "sha256"
_SHA256: Final = re.compile("[0-9a-f]{64}")


class Conflict(NamedTuple):
    """What is said of a job that is not answered."""

    sha256: str
    reply_from: int | None = None


def hash_of_record(value: bytes) -> str:
    """Return what a conflict says of a record: SHA-256 of its value, in hexadecimal."""
    return hashlib.sha256(value).hexdigest()


def encode_conflict(job: str, conflict: Conflict) -> bytes:
    """Return the record's value."""
    place = {} if conflict.reply_from is None else {REPLY_FROM: conflict.reply_from}
    return encode_notice(KIND, job, {SHA256: conflict.sha256} | place)


def decode_conflict(data: bytes | None, job: str) -> Conflict | None:
    """Return what is said of a job of this id; None if `data` is no conflict about it."""
    fields = decode_notice(data, KIND, job)
    if fields is None:
        return None
    sha256, place = fields.get(SHA256), fields.get(REPLY_FROM)
    if not isinstance(sha256, str) or _SHA256.fullmatch(sha256) is None:
        return None
    return Conflict(sha256, place) if place is None or is_offset(place) else None
