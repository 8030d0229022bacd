"""What a request's headers say of the jobs that it asks for: their ids, and their trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aril.gateway.failures import NEW_JOB, Refusal
from aril.gateway.places import new_job
from aril.openai.errors import KEY
from aril.schemas import is_job_id, limits
from aril.trace_context import TRACEPARENT, TRACESTATE, trace_headers

if TYPE_CHECKING:
    from starlette.requests import Request

    from aril.openai.jobs import JobFields

LONGEST_SUFFIX: Final = len(".1023")


def job_of(request: Request, tenant: str, jobs: int = 1) -> tuple[str, bool]:
    """Return the job's id, of which several jobs' are made, and whether the caller chose it.

    Raises `Refusal` for an Idempotency-Key that can be none.
    """
    key = request.headers.get(KEY)
    if key is None:
        request.scope[NEW_JOB] = True
        return new_job(tenant), False
    if not is_job_id(key if jobs == 1 else key + "." * LONGEST_SUFFIX):
        most = limits.MAX_JOB_ID_CHARS - (0 if jobs == 1 else LONGEST_SUFFIX)
        raise Refusal(400, f"{KEY}: 1 to {most} of A-Z, a-z, 0-9, '.', '_', '-'", param=KEY)
    return key, True


def trace_of(request: Request) -> JobFields:
    """Return the trace that a caller names; what is no trace is passed over, as W3C has it."""
    parent, state = request.headers.get(TRACEPARENT), request.headers.get(TRACESTATE)
    if parent is None:
        return {}
    try:
        trace_headers(parent, state)
    except ValueError:
        return {}
    return {"traceparent": parent, "tracestate": state}
