"""A redirect: to whoever sent a job again, where the answer to the first one begins.

It stands among the replies and belongs to no answer: it has no epoch and no writer, the reader
rule and `decode_reply` pass over it as over any kind that they do not know.
"""

from typing import Final

import msgpack

from aril.schemas import limits, names
from aril.schemas.codec import check_version
from aril.schemas.errors import DecodeError
from aril.schemas.unpack import unpack_map

KIND: Final = "redirect"


def encode_redirect(job: str, reply_from: int) -> bytes:
    """Return the record's value; `reply_from` is an offset of the partition that it is put on."""
    data: bytes = msgpack.packb(
        {"v": limits.VERSION, "kind": KIND, "job": job, "reply_from": reply_from}
    )
    return data


def decode_redirect(data: bytes | None, job: str) -> int | None:
    """Return the offset where the answer to `job` begins; None if `data` is no redirect of it."""
    try:
        fields = unpack_map(data, limits.MAX_REPLY_BYTES)
        check_version(fields)
    except DecodeError:
        return None
    start = fields.get("reply_from")
    if fields.get("kind") != KIND or not names.is_job_id(fields.get("job")):
        return None
    if fields["job"] != job or type(start) is not int or not 0 <= start <= limits.MAX_OFFSET:
        return None
    return start
