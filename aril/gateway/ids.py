"""Where an answer lies, and where its reader stands: the ids that a gateway gives out.

An answer's id is the kind of answer and where its replies begin, `chatcmpl-3.1042.<job>`; an
event's is its reader's resume token behind it, `3.1042.17.0.<job>`, and a `~` more once the answer
has ended. Several choices are joined by commas, and a last `~` is behind what closes them all. So
any gateway goes on from what another has said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.errors import BadToken
from aril.gateway.places import id_of, read_place
from aril.stream import ResumeToken

if TYPE_CHECKING:
    from collections.abc import Iterable

ENDED: Final = "~"
MOST: Final = 1_024
"""Choices of a request."""


class Standing(NamedTuple):
    """How much of a choice a reader has been given; they compare in the order of the stream."""

    resets: int = 0
    tokens: int = 0
    ended: bool = False


class Place(NamedTuple):
    """A reader's place in one choice: where that begins, and where the reader stands in it."""

    start: ResumeToken
    standing: Standing = Standing()


def answer_id(prefix: str, tokens: Iterable[ResumeToken]) -> str:
    """Return the id of the answer whose choices these are."""
    return prefix + ",".join(map(id_of, tokens))


def places_of(prefix: str, answer: str, tenant: str) -> list[Place]:
    """Return where the choices of a tenant's answer begin. Raises `BadToken`."""
    parts = answer.removeprefix(prefix).split(",")
    if not answer.startswith(prefix) or len(parts) > MOST:
        raise BadToken(f"an answer's id is {prefix}<partition>.<reply_from>.<job id>")
    return [Place(read_place(each, tenant)) for each in parts]


def beginning(token: ResumeToken) -> ResumeToken:
    """Return the token of a reader who has been given nothing."""
    return ResumeToken(token.job, token.partition, token.reply_from)


def event_id(token: ResumeToken, *, ended: bool) -> str:
    """Return a reader's place in one choice."""
    return f"{token}{ENDED}" if ended else str(token)


def place_id(place: Place) -> str:
    """Return the same of a place that was read."""
    start, standing = place
    token = replace(start, count=standing.tokens, resets=standing.resets)
    return event_id(token, ended=standing.ended)


def closed_id(joined: str) -> str:
    """Return the place behind what closes all choices, which stand as `joined` says."""
    return joined + ENDED


def read_event_id(text: str) -> tuple[list[Place], bool]:
    """Return a reader's places, and whether it has been given all there is. Raises `BadToken`."""
    parts = text.split(",")
    closed = text.endswith(ENDED * 2)
    if closed:
        parts[-1] = parts[-1].removesuffix(ENDED)
    if len(parts) > MOST:
        raise BadToken("a token for each choice, joined by commas")
    return [_place(each) for each in parts], closed


def _place(text: str) -> Place:
    token = ResumeToken.parse(text.removesuffix(ENDED))
    standing = Standing(token.resets, token.count, text.endswith(ENDED))
    return Place(beginning(token), standing)
