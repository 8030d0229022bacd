"""An answer as plain strings, for whoever cannot take anything back: a terminal, a log, a pipe.

    async for piece in texts(client.stream("Hello!")):
        print(piece, end="", flush=True)

The pieces, joined, are the answer. The last of them is in the `DoneEvent`, not in a `TokensEvent`.

A `ResetEvent` withdraws what was shown (rare: docs/exactly-once.md says when), and a string has no
way to tell. Mostly it need not: a job keeps its seed, so the new answer says again what the old one
had said, and nothing is given meanwhile. Where it differs, what was shown is wrong, and

* without `on_reset` that is raised as `TextWithdrawn`, before any of the new answer is given. The
  job goes on; the error's token is resumed to the new answer, from its beginning;
* `on_reset`, if there is one, is called, and the new answer follows from its beginning:

    parts = []
    async for piece in texts(stream, on_reset=parts.clear):
        parts.append(piece)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from aril.errors import TextWithdrawn
from aril.schemas import DoneEvent, ResetEvent, TokensEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from aril.schemas import Event
    from aril.stream import ResumeToken, Stream


class Detachable(Protocol):
    """A stream, of whichever kind."""

    def detach(self) -> ResumeToken:
        """Stop reading but let the job run."""


async def texts(
    stream: Stream, *, on_reset: Callable[[], object] | None = None
) -> AsyncGenerator[str, None]:
    """Give a stream's text piece by piece, the last one included; none is empty.

    Leaving early cancels the job, as with the stream. Of a resumed stream the rest is given; what
    was shown before it is not known here, so any Reset counts as one whose answer differs. Raises
    what the stream raises, and `TextWithdrawn`.
    """
    async with stream:
        shown = Shown(before=stream.token.count > 0)
        async for event in stream:
            withdrawn, piece = shown.add(event)
            if withdrawn:
                withdraw(stream, on_reset)
            if piece:
                yield piece


def withdraw(stream: Detachable, on_reset: Callable[[], object] | None) -> None:
    """Tell a reader that what it was given is wrong: by its callback, or by raising."""
    if on_reset is None:
        token = stream.detach()
        raise TextWithdrawn(token.job, str(replace(token, count=0)))
    on_reset()


class Piece(NamedTuple):
    """What to give next; if `withdrawn`, in place of all that was given before."""

    withdrawn: bool
    text: str


class Shown:
    """What a reader was given of one answer, and what it has to be given next."""

    def __init__(self, *, before: bool) -> None:
        """Begin with nothing; `before` says that a reader had something whose text is not known."""
        self._before = before
        self._given: list[str] = []
        self._old = ""  # given, withdrawn, and yet to be said again
        self._again = 0  # characters of it that were said again

    def add(self, event: Event) -> Piece:
        """Take the stream's next event."""
        if isinstance(event, ResetEvent):
            return self._reset()
        text = event.text if isinstance(event, TokensEvent | DoneEvent) else ""
        if not self._old:
            self._given.append(text)
            return Piece(withdrawn=False, text=text)
        return self._repeat(text, last=isinstance(event, DoneEvent))

    def _reset(self) -> Piece:
        if self._before:
            self._before = False
            self._given, self._old = [], ""
            return Piece(withdrawn=True, text="")
        self._old = self._old or "".join(self._given)
        self._again = 0
        return Piece(withdrawn=False, text="")

    def _repeat(self, text: str, *, last: bool) -> Piece:
        due = len(self._old) - self._again
        if len(text) < due:
            same = self._old.startswith(text, self._again) and not last
        else:
            same = text.startswith(self._old[self._again :])
        if not same:
            anew = self._old[: self._again] + text
            self._given, self._old = [anew], ""
            return Piece(withdrawn=True, text=anew)
        self._again += min(len(text), due)
        if self._again == len(self._old):
            self._given, self._old = [self._old, text[due:]], ""
        return Piece(withdrawn=False, text=text[due:])
