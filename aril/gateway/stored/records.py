"""What is written of a batch, and what is told of it.

    validating → in_progress → finalizing → completed
         ↓            ↓  ↘ cancelling  ↘ → cancelled, expired
       failed                            (from validating and in_progress, through finalizing)

Only who holds a batch's lock writes its record. A wish to cancel is a file of its own, so any
gateway may write that; until it is seen, the record is told as `cancelling`.
"""

from __future__ import annotations

import time
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from aril.batches.lines import Manner
from aril.job_lines import BATCH_PRIORITY

Status = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
Ending = Literal["completed", "expired", "cancelled"]

UNDER_WAY: Final = frozenset({"validating", "in_progress"})
"""What can still be cancelled."""
_ASKED: Final = ("input_file_id", "endpoint", "completion_window", "metadata", "output_seconds")
OVER: Final = frozenset({"failed", "completed", "expired", "cancelled"})


class Fault(BaseModel):
    """Why a batch failed, as OpenAI's clients know it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Usage(BaseModel):
    """Tokens of all answers."""

    input_tokens: int = 0
    output_tokens: int = 0

    def told(self) -> dict[str, Any]:
        """Return it in OpenAI's form; what is not counted here is zero."""
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + self.output_tokens,
        }


class Batch(BaseModel):
    """A batch as it stands. Times are in seconds since 1970."""

    model_config = ConfigDict(hide_input_in_errors=True)

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    metadata: dict[str, str] | None = None
    output_seconds: int | None = None
    """How long what it brings is to be kept; None: as long as files are."""
    bases: tuple[str, ...] = ()
    """What the backbone was called when it was made: another manner would ask it all anew."""
    priority: int = BATCH_PRIORITY

    status: Status = "validating"
    ending: Ending | None = None
    """What it comes to, once that is settled."""
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    cancelling_at: int | None = None
    ended_at: int | None = None
    faults: tuple[Fault, ...] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file: str | None = None
    """Drawn before the file is written, told once it is there; as the next."""
    error_file: str | None = None
    usage: Usage = Usage()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in OVER

    def asks_as(self, other: Batch) -> bool:
        """Whether two were asked for in the same words."""
        mine, theirs = ({name: getattr(each, name) for name in _ASKED} for each in (self, other))
        return mine == theirs

    def manner(self, tenant: str) -> Manner:
        """Return what its lines mean."""
        defaults = {"sampling": {}, "priority": self.priority}
        return Manner(defaults, bases=frozenset(self.bases), tenant=tenant)

    def move(self, status: Status, **changes: Any) -> Batch:
        """Return it in another status, from now on."""
        times = {"in_progress": "in_progress_at", "finalizing": "finalizing_at"}
        name = times.get(status, "ended_at" if status in OVER else None)
        at = {} if name is None else {name: int(time.time())}
        return self.model_copy(update={"status": status, **at, **changes})

    def told(self, *, cancel_at: int | None = None) -> dict[str, Any]:
        """Return OpenAI's batch object; `cancel_at` is when somebody wanted it ended."""
        status, cancelling = self.status, self.cancelling_at
        if cancel_at is not None and status in UNDER_WAY:
            status, cancelling = "cancelling", cancel_at
        over = self.is_over and status != "failed"
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": self._errors(),
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": status,
            "output_file_id": self.output_file if over and self.completed else None,
            "error_file_id": self.error_file if over and self.failed else None,
            "created_at": self.created_at,
            "in_progress_at": self.in_progress_at,
            "expires_at": self.expires_at,
            "finalizing_at": self.finalizing_at,
            "completed_at": self.ended_at if status == "completed" else None,
            "failed_at": self.ended_at if status == "failed" else None,
            "expired_at": self.ended_at if status == "expired" else None,
            "cancelling_at": cancelling,
            "cancelled_at": self.ended_at if status == "cancelled" else None,
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "usage": self.usage.told() if over else None,
            "metadata": self.metadata,
        }

    def _errors(self) -> dict[str, Any] | None:
        if not self.faults:
            return None
        return {"object": "list", "data": [each.model_dump() for each in self.faults]}
