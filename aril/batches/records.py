"""An answer, or why there is none → a line of the output, in the form of the line that asked.

OpenAI's lines get OpenAI's: `id`, `custom_id`, `response` {`status_code`, `request_id`, `body`} and
`error`, null beside an answer. An error is told twice, as the body that the endpoint would have
answered and as `error`, since programs look in either place. Ours get the last event of
`aril send --json`, its `text` being all of the answer.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from aril.event_fields import fields_of_error, fields_of_event
from aril.openai.errors import BAD_REQUEST, Refused, failure_of
from aril.openai.responses import ID_PREFIXES, response_of
from aril.schemas import DoneEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.batches.lines import Line, Question
    from aril.openai.answers import Answer

OPENAI_BEGINS: Final = b'{"id": "'
OURS_BEGINS: Final = b'{"line": "'
OF_REFUSALS: Final = ("code", "message", "retryable", "limit", "given")
DIGEST_CHARS: Final = 32
DIGEST: Final = re.compile(rf"[0-9a-f]{{{DIGEST_CHARS}}}")
_SECOND: Final = (b'", "custom_id": ', b'", "number": ')
"""What follows the digest, by the two forms of a record."""
_TORN: Final = re.compile(rb"[A-Za-z0-9_-]{0,20}(?:\.(?P<digest>[0-9a-f]{0,32})(?P<rest>.*))?")
"""A batch's name, of 16 characters and four for its round at most, and what is behind it."""


def answer_record(
    question: Question, name: str, answers: Sequence[Answer], *, created: int
) -> bytes:
    """Return the line of the output for a whole answer; `name` is the batch's."""
    line, last = question.line, answers[0]
    if question.asked is None:
        return _bytes(_ours(line, name) | _whole(last))
    body = response_of(
        question.asked,
        answers,
        id=ID_PREFIXES[question.asked.endpoint] + last.job,
        created=created,
    )
    response = {"status_code": 200, "request_id": last.job, "body": body}
    return _bytes(_openai(line, name) | {"response": response, "error": None})


def error_record(line: Line, name: str, error: Exception, job: str | None) -> bytes:
    """Return the line of the output for what has no answer; `job` is what was asked last."""
    if not line.is_openai:
        told = {"job": job} if job else {}
        return _bytes(_ours(line, name) | told | _error_event(error))
    failure = failure_of(error)
    response = {"status_code": failure.status, "request_id": job, "body": failure.body}
    return _bytes(_openai(line, name) | {"response": response, "error": failure.error})


def unasked_record(line: Line, name: str, *, code: str, message: str) -> bytes:
    """Return the line of the output for a line of OpenAI's that was not asked, or not to its end.

    It has no `response`, as no endpoint has answered.
    """
    error = {"code": code, "message": message, "param": None, "type": BAD_REQUEST}
    return _bytes(_openai(line, name) | {"response": None, "error": error})


def digest_in(record: bytes) -> tuple[str, bool] | None:
    """Return the digest of the line that a record answers, and whether it is an error.

    None if it is no record of a batch.
    """
    try:
        fields = json.loads(record)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    ours = record.startswith(OURS_BEGINS)
    told = fields.get("line" if ours else "id")
    if not isinstance(told, str) or not record.startswith((OURS_BEGINS, OPENAI_BEGINS)):
        return None
    _, dot, digest = told.rpartition(".")
    if not dot or DIGEST.fullmatch(digest) is None:
        return None
    if ours:
        return digest, fields.get("event") == "error"
    return (digest, fields["error"] is not None) if "error" in fields else None


def may_be_torn(beginning: bytes) -> bool:
    """Whether this may be what is left of a record whose writer was killed, and of nothing else."""
    for begins, second in zip((OPENAI_BEGINS, OURS_BEGINS), _SECOND, strict=True):
        same = begins.startswith(beginning[: len(begins)])
        if same and _is_torn(beginning[len(begins) :], second):
            return True
    return False


def _is_torn(behind: bytes, second: bytes) -> bool:
    found = _TORN.fullmatch(behind)
    if found is None or not (rest := found["rest"]):
        return found is not None
    return len(found["digest"]) == DIGEST_CHARS and second.startswith(rest[: len(second)])


def _openai(line: Line, name: str) -> dict[str, Any]:
    return {"id": f"{name}.{line.digest}", "custom_id": line.key}


def _ours(line: Line, name: str) -> dict[str, Any]:
    return {"line": f"{name}.{line.digest}", "number": line.number, "id": line.key}


def _whole(answer: Answer) -> dict[str, Any]:
    if not isinstance(answer.end, DoneEvent):
        raise TypeError("an answer whose end is not known")
    told = fields_of_event(answer.end)
    told |= {"text": answer.text, "ids": answer.token_ids}
    if answer.rows:
        told["logprobs"] = [[row.chosen, row.top] for row in answer.rows]
    return {"job": answer.job, **told}


def _error_event(error: Exception) -> dict[str, Any]:
    if not isinstance(error, Refused):
        return fields_of_error(error)
    told = failure_of(error).error
    return {"event": "error", **{name: told[name] for name in OF_REFUSALS if name in told}}


def _bytes(fields: dict[str, Any]) -> bytes:
    # Escaped: a lone surrogate of a custom_id is written as it came, and nothing breaks a line.
    return json.dumps(fields).encode() + b"\n"
