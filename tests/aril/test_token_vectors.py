"""Resume tokens by the contract's vectors: their text, and what their holders are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from aril.errors import ArilError, BadToken, JobConflict
from aril.router import Inbox, Mark
from aril.stream import ResumeToken
from aril.transport import Fetched, Place
from tests.schemas.test_vectors import described

FOLDER: Final = Path(__file__).parents[2] / "schemas/vectors"
ERRORS: Final[dict[str, type[ArilError]]] = {"bad_token": BadToken, "conflict": JobConflict}


def load(name: str) -> list[Any]:
    """Return a file's vectors as a test's parameters."""
    vectors = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    assert vectors
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


@pytest.mark.parametrize("vector", load("tokens"))
def test_tokens(vector: dict[str, Any]) -> None:
    """Each text says what its vector says, or is none; what it says is written in one way."""
    text, expect = vector["text"], vector["expect"]
    if "error" in expect:
        with pytest.raises(ERRORS[expect["error"]]):
            ResumeToken.parse(text)
        return
    assert ResumeToken.parse(text) == ResumeToken(**expect)
    assert str(ResumeToken(**expect)) == vector.get("canonical", text)


@pytest.mark.parametrize("vector", load("resumes"))
def test_resumes(vector: dict[str, Any]) -> None:
    """Who resumes is given exactly what its vector says, or told why not."""
    token, place = ResumeToken.parse(vector["token"]), Place("replies.acme", 0)
    values = [bytes.fromhex(step["hex"]) for step in vector["log"]]
    mark = Mark(token.resets, token.count)
    inbox = Inbox(token.job, place=place, position=token.reply_from, limit=100, resume_at=mark)
    at = token.reply_from
    while at < len(values) and inbox.failure is None:
        inbox.offer(Fetched(place, at, b"j1", values[at]))
        at += 1
        if inbox.redirected:
            at, inbox.stalled, inbox.redirected = inbox.position, False, False
    events = []
    while (event := inbox.take()) is not None:
        events.append(described(event))
    assert events == vector["expect"].get("events", [])
    error = vector["expect"].get("error")
    assert type(inbox.failure) is (ERRORS[error] if error else type(None))
