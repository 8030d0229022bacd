"""A job before it is sent: judged by the contract, then as the arguments of `Client.stream`.

It is judged by the code that workers judge it with, so what is refused here is refused there, in
the same words, and the other way round but for what only the service knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import msgpack

from aril.client import JobOptions
from aril.job_lines import ASKED_FIELDS
from aril.openai.errors import Refused, param_of, split_field
from aril.schemas import DecodeError, Job, decode_request, limits

if TYPE_CHECKING:
    from collections.abc import Mapping

MS: Final = 1_000
# Longest names that a client may give later: the record may not grow past its bound by them.
_PLACEHOLDERS: Final = {
    "v": limits.VERSION,
    "kind": "job",
    "strict": True,
    "id": "0" * limits.MAX_JOB_ID_CHARS,
    "tenant": "0" * limits.MAX_NAME_CHARS,
    "reply_from": limits.MAX_OFFSET,
}


class JobFields(JobOptions, total=False):
    """All arguments of `Client.stream`: `client.stream(**fields)`."""

    prompt: str


def judged(fields: Mapping[str, Any], names: Mapping[str, str] | None = None) -> Job:
    """Return the job of these fields of the contract, who asks and its id left open.

    `names` is what the caller's form calls fields otherwise. Raises `Refused`.
    """
    try:
        job = decode_request(msgpack.packb(_PLACEHOLDERS | dict(fields)))
    except DecodeError as error:
        raise _refused(error, names or {}) from None
    except (OverflowError, RecursionError, TypeError, UnicodeEncodeError, ValueError):
        raise Refused("holds text or a number that no record can hold") from None
    if not isinstance(job, Job):
        raise TypeError("fields of a cancel")
    return job


def arguments_of(job: Job, **others: Any) -> JobFields:
    """Return what was judged as arguments of `Client.stream`, `others` replacing some of it."""
    said = {
        name: getattr(job, name)
        for name in ASKED_FIELDS
        if getattr(job, name) != Job.model_fields[name].get_default()
    }
    if job.deadline_ms is not None:
        said["deadline"] = job.deadline_ms / MS
    return cast("JobFields", said | others)


def _refused(error: DecodeError, names: Mapping[str, str]) -> Refused:
    param, said = param_of(error.code, error.message), error.message
    field, rest = split_field(error.message)
    if field is not None:
        top = field.replace("[", ".").partition(".")[0]
        param = names.get(top, top) + field[len(top) :]
        said = f"{param}: {rest}"
    return Refused(said, param=param, code=error.code, limit=error.limit, given=error.given)
