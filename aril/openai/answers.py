"""One answer, gathered from the events of its stream, with what a `Completion` leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from aril.schemas import DoneEvent, ResetEvent, TokensEvent

if TYPE_CHECKING:
    from aril.openai.shapes import Told
    from aril.schemas import Event, TokenLogprobs
    from aril.stream import Completion


class Answer:
    """What is visible of a job. Feed it the events of its stream, or make it of a completion."""

    __slots__ = ("_offsets", "_texts", "end", "job", "length", "rows", "token_ids")

    def __init__(self, job: str) -> None:
        self.job = job
        self.end: DoneEvent | Completion | None = None
        self._begin()

    def _begin(self) -> None:
        self._texts: list[str] = []
        self._offsets: list[int] = []
        self.length = 0
        self.token_ids: list[int] = []
        self.rows: list[TokenLogprobs] = []

    @classmethod
    def of(cls, completion: Completion) -> Self:
        """Return the answer of a completion, which has no log probabilities of its tokens."""
        answer = cls(completion.job)
        answer._texts.append(completion.text)
        answer.length = len(completion.text)
        answer.token_ids = [*completion.token_ids]
        answer.end = completion
        return answer

    @property
    def text(self) -> str:
        """The text so far; once it has ended, all of it."""
        return "".join(self._texts)

    @property
    def offsets(self) -> list[int]:
        """Where the piece of text begins that each token came with, in characters."""
        return self._offsets

    def add(self, event: Event) -> None:
        """Take the next event; a reset withdraws what there is."""
        if isinstance(event, TokensEvent):
            self._offsets += [self.length] * len(event.ids)
            self.token_ids += event.ids
            self.rows += event.logprobs or ()
            self._show(event.text)
        elif isinstance(event, DoneEvent):
            self._show(event.text)
            self.end = event
        elif isinstance(event, ResetEvent):
            self._begin()

    def _show(self, text: str) -> None:
        self._texts.append(text)
        self.length += len(text)


def told_of(job: str, end: DoneEvent | Completion) -> Told:
    """Return what the service says of an answer beyond OpenAI's words."""
    return {
        "job": job,
        "adapter": end.adapter,
        "digest": end.digest,
        "adapters": [
            {"name": each.name, "digest": each.digest, "weight": each.weight}
            for each in end.adapters
        ],
        "base": end.base,
        "base_digest": end.base_digest,
        "seed": end.seed,
        "queue_ms": end.timings.queue_ms,
        "ttft_ms": end.timings.ttft_ms,
        "total_ms": end.timings.total_ms,
    }
