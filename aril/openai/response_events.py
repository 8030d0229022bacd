"""The events of a job's stream → a response as OpenAI's Responses interface has it, and its events.

Both are made of the log alone. The numbers of events are a function of it, so a number means the
same to every gateway, before and after any crash: a record of tokens is one delta.

    0 response.created              told of what nobody has begun
    1 response.in_progress          with the first record that counts
    2 response.output_item.added
    3 response.content_part.added
    4 response.output_text.delta    one a record, one more for text that comes with the end
      response.output_text.done     content_part.done, output_item.done
      response.completed            or .incomplete; after an error .failed, at once

An answer that is withdrawn is an `error` with code `withdrawn`; behind that the message is added
anew. An error of the job that comes first is the next event behind `created`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aril.openai.answers import Answer, told_of
from aril.openai.errors import Withdrawn
from aril.openai.logprobs import chat_logprobs
from aril.schemas import DoneEvent, ErrorCode, ErrorEvent, ResetEvent, TokensEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aril.openai.shapes import TokenLogprob
    from aril.schemas import Event

Typed = dict[str, Any]
"""An event, with its `type` and `sequence_number`."""
WITHDRAWN: Final = "withdrawn"
UNTOLD: Final[Mapping[str, Any]] = {
    "background": None,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "model": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
}
"""What a request had said, to whoever does not know it."""


class ResponseEvents:
    """Feed it a job's events in the order of the log."""

    def __init__(
        self,
        id: str,  # noqa: A002 - what it is called there
        job: str,
        *,
        created: int | None,
        told: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin a response; `created` is in seconds since 1970, `told` what its request said."""
        self.id = id
        self.begun = False
        self._created = created or 0
        self._told = told or {}
        self._answer = Answer(job)
        self._error: ErrorEvent | None = None
        self._number = 0
        self._resets = 0
        self._item_open = False

    def opening(self) -> Typed:
        """Return the first event, which comes before any of the job's."""
        return self._next("response.created", response=self.response())

    def of(self, event: Event) -> list[Typed]:
        """Return the events of the job's next one."""
        if isinstance(event, TokensEvent):
            return [*self._open(), self._delta(event.text, event)]
        if isinstance(event, ResetEvent):
            return [self._withdraw(event)]
        if isinstance(event, DoneEvent):
            return self._end(event)
        self._error = event
        return [self._next("response.failed", response=self.response())]

    def response(self) -> dict[str, Any]:
        """Return the response as it stands."""
        end = self._answer.end
        return {
            **UNTOLD,
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": self._status(),
            "error": self._error_body(),
            "incomplete_details": self._incomplete(),
            "output": [self._item(self._item_status())] if self._item_open else [],
            "usage": None if not isinstance(end, DoneEvent) else _usage(end),
            **self._ended_by(end),
            **self._told,
        }

    def _status(self) -> str:
        if self._error is not None:
            return "cancelled" if self._error.code is ErrorCode.CANCELLED else "failed"
        if self._answer.end is not None:
            return "completed" if self._answer.end.finish_reason == "stop" else "incomplete"
        return "in_progress" if self.begun else "queued"

    def _incomplete(self) -> dict[str, str] | None:
        return {"reason": "max_output_tokens"} if self._status() == "incomplete" else None

    def _error_body(self) -> dict[str, Any] | None:
        error = self._error
        if error is None or error.code is ErrorCode.CANCELLED:
            return None
        return {"code": error.code.value, "message": error.message, "retryable": error.retryable}

    def _ended_by(self, end: object) -> dict[str, Any]:
        """Return what only the end of an answer tells."""
        if self._error is not None:
            return {"metadata": dict(self._error.metadata)}
        if not isinstance(end, DoneEvent):
            return {}
        return {
            "model": end.adapter or end.base,
            "metadata": dict(end.metadata),
            "aril": told_of(self._answer.job, end),
        }

    def _open(self) -> list[Typed]:
        """Return the events that come before an answer's first piece."""
        made = []
        if self._number == 1:
            self.begun = True
            made.append(self._next("response.in_progress", response=self.response()))
        if not self._item_open:
            self._item_open = True
            item = self._item("in_progress") | {"content": []}
            made.append(self._next("response.output_item.added", output_index=0, item=item))
            made.append(self._of_part("response.content_part.added", part=self._part()))
        return made

    def _delta(self, text: str, event: TokensEvent | None = None) -> Typed:
        if event is not None:
            self._answer.add(event)
        rows = None if event is None else event.logprobs
        logprobs: list[TokenLogprob] = (
            [] if event is None or rows is None else chat_logprobs(event.ids, rows, None)["content"]
        )
        return self._of_part("response.output_text.delta", delta=text, logprobs=logprobs)

    def _end(self, event: DoneEvent) -> list[Typed]:
        made = self._open()
        if event.text:
            made.append(self._delta(event.text))
        self._answer.add(event)
        part, status = self._part(), self._item_status()
        made.append(
            self._of_part("response.output_text.done", text=part["text"], logprobs=part["logprobs"])
        )
        made.append(self._of_part("response.content_part.done", part=part))
        item = self._item(status)
        made.append(self._next("response.output_item.done", output_index=0, item=item))
        made.append(self._next(f"response.{self._status()}", response=self.response()))
        return made

    def _withdraw(self, event: ResetEvent) -> Typed:
        self._answer.add(event)
        self._resets += 1
        self._item_open = False
        return self._next(
            "error", code=WITHDRAWN, message=str(Withdrawn()), param=None, retryable=True
        )

    def _item_status(self) -> str:
        if self._error is not None:
            return "incomplete"
        if self._answer.end is None:
            return "in_progress"
        return "completed" if self._answer.end.finish_reason == "stop" else "incomplete"

    @property
    def _item_id(self) -> str:
        job = self._answer.job
        return f"msg_{job}.{self._resets}" if self._resets else f"msg_{job}"

    def _item(self, status: str) -> dict[str, Any]:
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [self._part()],
        }

    def _part(self) -> dict[str, Any]:
        answer = self._answer
        rows = chat_logprobs(answer.token_ids, answer.rows, None) if answer.rows else None
        return {
            "type": "output_text",
            "text": answer.text,
            "annotations": [],
            "logprobs": [] if rows is None else rows["content"],
        }

    def _of_part(self, kind: str, **fields: Any) -> Typed:
        return self._next(kind, item_id=self._item_id, output_index=0, content_index=0, **fields)

    def _next(self, kind: str, **fields: Any) -> Typed:
        number = self._number
        self._number += 1
        return {"type": kind, "sequence_number": number, **fields}


def _usage(end: DoneEvent) -> dict[str, Any]:
    prompt, completion = end.usage
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }
