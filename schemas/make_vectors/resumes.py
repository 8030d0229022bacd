"""Streams that are gone on with: a log, a token, and what its holder is given.

All events of the log but the first few are; those were given before, by whichever client.
"""

from typing import Final

from aril.schemas.make_vectors.build import Fields, Vector, pack
from aril.schemas.make_vectors.streams import Step, Writer, foreign, ignored, resetting

_A1, _B2, _C3 = Writer("a", 1), Writer("b", 2), Writer("c", 3)
_TAKEN_OVER: Final = (
    _A1.tokens(0, [1, 2], "ab"),
    _A1.tokens(2, [3], "c"),
    _B2.claim(),
    ignored(_A1.tokens(3, [93], "x")),
    resetting(_C3.tokens(0, [4], "d"), 3),
    _C3.tokens(1, [5], "e"),
    _C3.done(2, "!"),
)
_SENT_AGAIN: Final = (
    _A1.tokens(0, [1], "a"),
    _A1.done(1),
    foreign({"kind": "redirect", "job": "j1", "reply_from": 0}),
)
_CONFLICT: Final = (
    _A1.tokens(0, [1], "a"),
    _A1.tokens(1, [2], "b"),
    foreign({"kind": "conflict", "job": "j1", "sha256": "0a" * 32, "reply_from": 1}),
    _A1.done(2),
)


def resume_vectors() -> list[Vector]:
    """Return logs whose first record has the offset 0, read from a token's place."""
    return [*_places(), *_no_places(), *_notices()]


def _places() -> list[Vector]:
    return [
        _resume("from the beginning", "All of it.", "0.0.0.0.j1", 0, _TAKEN_OVER),
        _resume("behind a record", "Exactly the rest.", "0.0.2.0.j1", 1, _TAKEN_OVER),
        _resume(
            "before a reset",
            "What was given is withdrawn: that comes first.",
            "0.0.3.0.j1",
            2,
            _TAKEN_OVER,
        ),
        _resume("behind a reset", "Before what took its place.", "0.0.0.1.j1", 3, _TAKEN_OVER),
        _resume("in the new answer", "Counted anew.", "0.0.1.1.j1", 4, _TAKEN_OVER),
        _resume("before the end", "The end, and its text.", "0.0.2.1.j1", 5, _TAKEN_OVER),
        _resume(
            "behind what there is",
            "Nothing yet: more may come.",
            "0.0.3.0.j1",
            2,
            _TAKEN_OVER[:4],
        ),
    ]


def _no_places() -> list[Vector]:
    inside = "Within a record nobody ever stood."
    past = "The answer has not so much."
    return [
        _refused("inside of a record", inside, "0.0.1.0.j1", "bad_token", _TAKEN_OVER),
        _refused("past a reset's answer", past, "0.0.4.0.j1", "bad_token", _TAKEN_OVER),
        _refused("past the end", past, "0.0.3.1.j1", "bad_token", _TAKEN_OVER),
        _refused("a reset too many", past, "0.0.0.2.j1", "bad_token", _TAKEN_OVER),
    ]


def _notices() -> list[Vector]:
    return [
        _resume(
            "led to the first answer",
            "The job had been sent before, and nothing was given: it is read from offset 0.",
            "0.2.0.0.j1",
            0,
            _SENT_AGAIN,
        ),
        _resume(
            "not led anywhere",
            "Who was given something reads that answer, not the first one.",
            "0.2.1.0.j1",
            2,
            _SENT_AGAIN,
        ),
        _refused(
            "another job has the id",
            "What was sent from this place is not answered.",
            "0.1.0.0.j1",
            "conflict",
            _CONFLICT,
        ),
        _resume("the job that has it", "It is not meant.", "0.0.1.0.j1", 1, _CONFLICT),
    ]


def _resume(name: str, meaning: str, token: str, given: int, log: tuple[Step, ...]) -> Vector:
    """Return a vector in which the first `given` events are not given again."""
    events = [event for step in log for event in step.events]
    return _vector(name, meaning, token, {"events": events[given:]}, log)


def _refused(name: str, meaning: str, token: str, error: str, log: tuple[Step, ...]) -> Vector:
    return _vector(name, meaning, token, {"error": error}, log)


def _vector(name: str, meaning: str, token: str, expect: Fields, log: tuple[Step, ...]) -> Vector:
    records = [{"hex": pack(step.record).hex(), "record": step.record} for step in log]
    return {"name": name, "meaning": meaning, "log": records, "token": token, "expect": expect}
