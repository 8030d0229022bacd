"""A redirect: to whoever sent a job again, where the answer to the first one begins."""

from typing import Final

from aril.schemas.notice import REPLY_FROM, decode_notice, encode_notice, is_offset

KIND: Final = "redirect"


def encode_redirect(job: str, reply_from: int) -> bytes:
    """Return the record's value; `reply_from` is an offset of the partition that it is put on."""
    return encode_notice(KIND, job, {REPLY_FROM: reply_from})


def decode_redirect(data: bytes | None, job: str) -> int | None:
    """Return the offset where the answer to `job` begins; None if `data` is no redirect of it."""
    fields = decode_notice(data, KIND, job)
    if fields is None or not is_offset(fields.get(REPLY_FROM)):
        return None
    start: int = fields[REPLY_FROM]
    return start
