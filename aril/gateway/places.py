"""Ids of answers: where their replies begin, and nothing that a gateway would have to remember.

    <partition>.<reply_from>.<job>        with `chatcmpl-`, `cmpl-` or `resp_` before it, or nothing

Jobs that are made here have ids that tell when they were made, and, to whoever knows the tenant,
whether they are that tenant's: so a mistyped id, or another tenant's, is known not to be there.
That is for clear answers, not for safety: whoever asks is only ever led to its own replies.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import Final

from aril.errors import BadToken
from aril.stream import ResumeToken

PREFIXES: Final = ("chatcmpl-", "cmpl-", "resp_")
_PLACE: Final = re.compile(r"(\d{1,19})\.(\d{1,19})\.([\w.-]{1,64})", re.ASCII)
_OURS: Final = re.compile(r"g([0-9a-f]{12})([0-9a-f]{20})([0-9a-f]{8})(?:\.\d{1,4})?", re.ASCII)
MS: Final = 1_000


def place_of(answer: str, tenant: str) -> ResumeToken:
    """Return where an answer begins. Raises `BadToken` for what is no id, or not this tenant's."""
    for prefix in PREFIXES:
        if answer.startswith(prefix):
            answer = answer.removeprefix(prefix)
            break
    return read_place(answer, tenant)


def read_place(text: str, tenant: str) -> ResumeToken:
    """Return the same of an id without a prefix."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise BadToken("an answer's id is <partition>.<reply_from>.<job id>")
    partition, reply_from, job = found.groups()
    ours = _OURS.fullmatch(job)
    if ours is not None and ours[3] != _check(tenant, ours[1] + ours[2]):
        raise BadToken("no job of this id was made for this tenant")
    return ResumeToken(job, int(partition), int(reply_from))


def id_of(place: ResumeToken, prefix: str = "") -> str:
    """Return an answer's id."""
    return f"{prefix}{place.partition}.{place.reply_from}.{place.job}"


def new_job(tenant: str) -> str:
    """Return the id of a new job."""
    own = f"{int(time.time() * MS):012x}{secrets.token_hex(10)}"
    return f"g{own}{_check(tenant, own)}"


def made_at(job: str) -> int | None:
    """Return when a job's id was made, in seconds since 1970; None if it was not by `new_job`."""
    ours = _OURS.fullmatch(job)
    return None if ours is None else int(ours[1], 16) // MS


def _check(tenant: str, own: str) -> str:
    return hashlib.sha256(f"{tenant} {own}".encode()).hexdigest()[:8]
