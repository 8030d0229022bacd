"""Notices: what a worker tells whoever sent a job under an id that is known.

They stand among the replies and belong to no answer: they have no epoch and no writer, the reader
rule and `decode_reply` pass over them as over any kind that they do not know.
"""

from typing import Any, Final

import msgpack

from aril.schemas import limits, names
from aril.schemas.codec import check_version
from aril.schemas.errors import DecodeError
from aril.schemas.unpack import unpack_map

REPLY_FROM: Final = "reply_from"


def encode_notice(kind: str, job: str, fields: dict[str, Any]) -> bytes:
    """Return the record's value."""
    data: bytes = msgpack.packb({"v": limits.VERSION, "kind": kind, "job": job} | fields)
    return data


def decode_notice(data: bytes | None, kind: str, job: str) -> dict[str, Any] | None:
    """Return the fields of a notice of this kind about `job`; None if `data` is none."""
    try:
        fields = unpack_map(data, limits.MAX_REPLY_BYTES)
        check_version(fields)
    except DecodeError:
        return None
    about = fields.get("job")
    return (
        fields if fields.get("kind") == kind and names.is_job_id(about) and about == job else None
    )


def is_offset(value: object) -> bool:
    """Whether `value` is an offset of a log."""
    return type(value) is int and 0 <= value <= limits.MAX_OFFSET
