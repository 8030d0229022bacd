"""Where an answer lies, and where its reader stands: the ids that a gateway gives out.

An answer's id is the kind of answer and where its replies begin, `chatcmpl-3.1042.<job>`; an
event's is its reader's resume token behind it, `3.1042.17.0.<job>`, and a `~` more once the answer
has ended. Several choices are joined by commas, and a last `~` is behind what closes them all. The
jobs of one request, `<name>` and `<name>.1` to `<name>.<n - 1>`, are named by the last alone, as
every event has all of it: `chatcmpl-3.1042,0.77,3.1043.<name>.2`. So any gateway goes on from
another.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.errors import BadToken
from aril.gateway.places import id_of, read_place
from aril.stream import ResumeToken

if TYPE_CHECKING:
    from collections.abc import Sequence

ENDED: Final = "~"
MOST: Final = 1_024
"""Choices of a request."""
# A part without its job's name, and the last one with it, in an answer's id and in an event's.
_START: Final = re.compile(r"\d{1,19}\.\d{1,19}", re.ASCII)
_STARTS: Final = re.compile(rf"{_START.pattern}\.(.+)\.(\d{{1,4}})", re.ASCII)
_TOKEN: Final = re.compile(rf"{_START.pattern}\.{_START.pattern}{ENDED}?", re.ASCII)
_TOKENS: Final = re.compile(
    rf"{_START.pattern}\.{_START.pattern}\.(.+)\.(\d{{1,4}}){ENDED}?", re.ASCII
)


class Standing(NamedTuple):
    """How much of a choice a reader has been given; they compare in the order of the stream."""

    resets: int = 0
    tokens: int = 0
    ended: bool = False


class Place(NamedTuple):
    """A reader's place in one choice: where that begins, and where the reader stands in it."""

    start: ResumeToken
    standing: Standing = Standing()


def nameless(jobs: Sequence[str]) -> list[bool]:
    """Return which choices' parts go without their jobs' names, as the last one tells them."""
    name, _, _ = jobs[-1].rpartition(".")
    alike = all(job == job_of_choice(name, at) for at, job in enumerate(jobs))
    return [alike] * (len(jobs) - 1) + [False]


def answer_id(prefix: str, tokens: Sequence[ResumeToken]) -> str:
    """Return the id of the answer whose choices these are."""
    short = nameless([token.job for token in tokens])
    return prefix + ",".join(
        id_of(token).removesuffix(f".{token.job}") if short[at] else id_of(token)
        for at, token in enumerate(tokens)
    )


def places_of(prefix: str, answer: str, tenant: str) -> list[Place]:
    """Return where the choices of a tenant's answer begin. Raises `BadToken`."""
    parts = answer.removeprefix(prefix).split(",")
    if not answer.startswith(prefix) or len(parts) > MOST:
        raise BadToken(f"an answer's id is {prefix}<partition>.<reply_from>.<job id>")
    return [Place(read_place(each, tenant)) for each in _named(parts, _STARTS, _START)]


def beginning(token: ResumeToken) -> ResumeToken:
    """Return the token of a reader who has been given nothing."""
    return ResumeToken(token.job, token.partition, token.reply_from)


def event_id(token: ResumeToken, *, ended: bool, short: bool = False) -> str:
    """Return a reader's place in one choice; `short` as `nameless` has it."""
    text = str(token).removesuffix(f".{token.job}") if short else str(token)
    return f"{text}{ENDED}" if ended else text


def place_id(place: Place, *, short: bool = False) -> str:
    """Return the same of a place that was read."""
    start, standing = place
    token = replace(start, count=standing.tokens, resets=standing.resets)
    return event_id(token, ended=standing.ended, short=short)


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
    return [_place(each) for each in _named(parts, _TOKENS, _TOKEN)], closed


def job_of_choice(name: str, at: int) -> str:
    """Return the id of one of several jobs that a request asks for."""
    return f"{name}.{at}" if at else name


def _place(text: str) -> Place:
    token = ResumeToken.parse(text.removesuffix(ENDED))
    standing = Standing(token.resets, token.count, text.endswith(ENDED))
    return Place(beginning(token), standing)


def _named(parts: list[str], last: re.Pattern[str], short: re.Pattern[str]) -> list[str]:
    """Write the jobs' names into parts that go without; those of others are left as they are."""
    found = last.fullmatch(parts[-1])
    if found is None or found[2] != str(len(parts) - 1):
        return parts
    named = []
    for at, each in enumerate(parts):
        if short.fullmatch(each):
            end = ENDED if each.endswith(ENDED) else ""
            named.append(f"{each.removesuffix(ENDED)}.{job_of_choice(found[1], at)}{end}")
        else:
            named.append(each)
    return named
