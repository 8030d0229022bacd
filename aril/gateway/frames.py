"""The events of a reading as server-sent events: chunks in OpenAI's form, each with its place."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from aril.gateway import ids
from aril.gateway.failures import Refusal
from aril.gateway.ids import Standing
from aril.gateway.sse import event as frame
from aril.openai.chunks import Chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.gateway.ids import Place
    from aril.openai.chunks import Chunk
    from aril.openai.common import Asked
    from aril.schemas import Event
    from aril.stream import Stream


class Frames:
    """Makes what is sent of a reading; nothing of what the reader has been given, in `after`.

    There is at most one frame for an event of a stream, so the place behind a frame is the place
    behind its event. The first one opens all choices.
    """

    def __init__(
        self,
        asked: Asked,
        streams: Sequence[Stream],
        *,
        prefix: str,
        after: Sequence[Place] | None = None,
    ) -> None:
        self._asked = asked
        self._streams = streams
        self._prefix = prefix
        self._short = ids.nameless([stream.job for stream in streams])
        self._after = None if after is None else [*after]
        self._chunks: Chunks | None = None
        self._standing = [Standing()] * len(streams)
        self._texts: list[str] = []
        self._parts: list[bytes] = []
        self.waiting = 0

    def add(self, at: int, event: Event) -> None:
        """Take the next event of choice `at`.

        Raises `Withdrawn` where the answer begins anew, `Refusal` where `after` is nowhere in it.
        """
        chunks = self._chunks or self._open()
        stream = self._streams[at]
        token, before = stream.token, self._standing[at]
        standing = Standing(token.resets, token.count, stream.finished)
        self._standing[at] = standing
        made = chunks.of(at, stream.job, event)
        if self._after is not None and not _is_new(before, standing, self._after[at].standing):
            return
        self._texts[at] = ids.event_id(token, ended=stream.finished, short=self._short[at])
        for chunk in made:
            self._put(chunk, ",".join(self._texts))

    def close(self) -> None:
        """Make what comes behind all choices."""
        chunks = self._chunks or self._open()
        for chunk in chunks.closing():
            self._put(chunk, ids.closed_id(",".join(self._texts)))

    def take(self) -> bytes:
        """Return what was made and not taken."""
        taken = b"".join(self._parts)
        self._parts.clear()
        self.waiting = 0
        return taken

    def _open(self) -> Chunks:
        # Only now: a job that was sent before has led its stream to where its answer begins.
        tokens = [stream.token for stream in self._streams]
        self._texts = (
            [
                ids.event_id(ids.beginning(token), ended=False, short=short)
                for token, short in zip(tokens, self._short, strict=True)
            ]
            if self._after is None
            else [
                ids.place_id(place, short=short)
                for place, short in zip(self._after, self._short, strict=True)
            ]
        )
        self._chunks = chunks = Chunks(
            self._asked,
            id=ids.answer_id(self._prefix, tokens),
            created=int(time.time()),
        )
        opening = [chunk for at in range(len(tokens)) for chunk in chunks.opening(at)]
        if opening and self._after is None:
            first, *others = opening
            choices = cast("list[object]", first["choices"])
            for each in others:  # as one: it has been given whole, or not
                choices += each["choices"]
            self._put(first, ",".join(self._texts))
        return chunks

    def _put(self, chunk: Chunk, place: str) -> None:
        made = frame(chunk, id=place)
        self._parts.append(made)
        self.waiting += len(made)


def _is_new(before: Standing, standing: Standing, given: Standing) -> bool:
    """Whether an event that leads from `before` to `standing` lies behind what was given."""
    # Nothing is behind an answer's end, and nobody stands inside of an event.
    past = standing.ended and standing < given
    inside = before < given < standing and before.resets == given.resets == standing.resets
    if past or inside:
        raise Refusal(400, "last-event-id: fits no place in this answer", param="last-event-id")
    return standing > given
