"""Logs of one job and what a reader sees: after each record, and in the end.

Three workers write: a, b and c. A step is a record and the events that it causes.
"""

from typing import Any, NamedTuple

from aril.schemas.make_vectors.build import Fields, Vector, pack

Event = dict[str, Any]


class Step(NamedTuple):
    """A record of the log and the events that a reader makes of it."""

    record: Fields
    events: tuple[Event, ...]


class Writer(NamedTuple):
    """One worker in one epoch."""

    worker: str
    generation: int
    attempt: int = 1

    def record(self, kind: str, **fields: Any) -> Fields:
        """Return a record of this writer."""
        epoch = [self.generation, self.attempt]
        return {"kind": kind, "job": "j1", "epoch": epoch, "worker": self.worker, **fields}

    def claim(self) -> Step:
        """Claim the job; no event, ever."""
        return Step(self.record("claim"), ())

    def release(self) -> Step:
        """Release the job; no event, ever."""
        return Step(self.record("release"), ())

    def tokens(self, index: int, ids: list[int], text: str) -> Step:
        """Write tokens that become visible."""
        event = {"tokens": {"index": index, "ids": ids, "text": text}}
        return Step(self.record("tokens", index=index, ids=ids, text=text), (event,))

    def done(self, index: int, text: str = "") -> Step:
        """Write the visible end of an answer."""
        usage = {"prompt_tokens": 1, "completion_tokens": index}
        timings = {"queue_ms": 0.0, "ttft_ms": 0.0, "total_ms": 0.0}
        record = self.record(
            "done",
            index=index,
            text=text,
            finish_reason="stop",
            usage=usage,
            adapter=None,
            digest=None,
            base="base",
            seed=0,
            timings=timings,
            metadata={},
        )
        return Step(record, ({"done": {"index": index, "text": text}},))

    def error(self, index: int, code: str = "cancelled") -> Step:
        """Write the visible failure of a job."""
        record = self.record(
            "error", index=index, code=code, message=code, retryable=False, metadata={}
        )
        return Step(record, ({"error": {"index": index, "code": code}},))


def ignored(step: Step) -> Step:
    """Return the step as one that changes nothing."""
    return Step(step.record, ())


def resetting(step: Step, withdrawn: int) -> Step:
    """Return the step as one that withdraws what is visible first."""
    return Step(step.record, ({"reset": {"withdrawn": withdrawn}}, *step.events))


def foreign(record: Fields) -> Step:
    """Return a step with a record that readers of version 1 skip."""
    return Step(record, ())


class Visible(NamedTuple):
    """What is visible in the end: current writer, tokens, text, kind of terminal, resets."""

    by: Writer | None
    ids: list[int]
    text: str
    end: str | None
    resets: int = 0


def stream(name: str, meaning: str, visible: Visible, *steps: Step) -> Vector:
    """Return a log and what a reader makes of it."""
    by, ids, text, end, resets = visible
    return {
        "name": name,
        "meaning": meaning,
        "log": [
            {"hex": pack(step.record).hex(), "record": step.record, "events": list(step.events)}
            for step in steps
        ],
        "visible": {
            "epoch": [by.generation, by.attempt] if by else [0, 0],
            "writer": by.worker if by else None,
            "token_ids": ids,
            "text": text,
            "terminal": end,
            "resets": resets,
        },
    }
