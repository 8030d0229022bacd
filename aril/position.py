"""Where a reader stands in a job's replies, so that it goes on without what came before.

A resume token counts tokens, and the answer is folded again from its beginning. A position is the
state of the reader rule behind one record of the log: reading goes on at the next record, and what
is read is the same for every reader, since positions are the log's and nobody's pace. As texts they
sort as they stand in the log.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.errors import BadToken
from aril.schemas import Epoch, VisibleStream, limits

if TYPE_CHECKING:
    from aril.schemas import Event, ReplyRecord

_DIGITS: Final = 19  # of an int64, so that texts sort as numbers do
_TEXT: Final = re.compile(
    r"(\d{19})(?:_(\d{1,6})_(\d{1,6})_(\d{1,16})_(\d{1,16})_([0-9a-f]{12})(_end)?)?", re.ASCII
)
_KNOWN_BY_DIGEST: Final = "#"  # in no worker's name


class Position(NamedTuple):
    """Behind one record of a job; or at its beginning, wherever that is."""

    offset: int = 0
    """Of the log: what is read next. 0 at the beginning."""
    tokens: int = 0
    """Visible tokens since the last of `resets` resets."""
    resets: int = 0
    epoch: Epoch = Epoch(0, 0)
    writer: str = ""
    """A digest of the worker whose records count."""
    ended: bool = False

    @classmethod
    def behind(cls, stream: VisibleStream, offset: int) -> Position:
        """Return where a reader stands that has folded all below `offset` into `stream`."""
        writer = _digest(stream.writer or "")
        return cls(offset, stream.count, stream.resets, stream.epoch, writer, stream.finished)

    @property
    def at_start(self) -> bool:
        """Whether nothing has been read."""
        return self.offset == 0

    def stream(self) -> VisibleStream:
        """Return a stream in this state, of an answer that has not ended.

        The tokens before it are known by their number only.
        """
        return _Resumed(self) if self.offset else VisibleStream()

    def __str__(self) -> str:
        place = f"{self.offset:0{_DIGITS}d}"
        if self.at_start:
            return place
        generation, attempt = self.epoch
        state = f"{self.tokens}_{self.resets}_{generation}_{attempt}_{self.writer}"
        return f"{place}_{state}_end" if self.ended else f"{place}_{state}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what `str` wrote. Raises `BadToken`."""
        found = _TEXT.fullmatch(text)
        if found is not None:
            offset, count, resets, generation, attempt, writer, end = found.groups()
            if writer is None and int(offset) == 0:
                return START
            if writer is not None and int(offset) and int(count) <= limits.MAX_MAX_TOKENS:
                epoch = Epoch(int(generation), int(attempt))
                position = cls(int(offset), int(count), int(resets), epoch, writer, end is not None)
                if str(position) == text:  # two texts of one place would be two places
                    return position
        raise BadToken("no offset that a reader of this stream was given")


START: Final = Position()


class _Resumed(VisibleStream):
    """Goes on from a position: until its writer is heard of again, it is known by its digest."""

    __slots__ = ()

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.epoch, self.resets = position.epoch, position.resets
        self.writer = _KNOWN_BY_DIGEST + position.writer
        self._ids = [0] * position.tokens

    def feed(self, record: ReplyRecord) -> tuple[Event, ...]:
        writer = self.writer
        if (
            writer is not None
            and writer.startswith(_KNOWN_BY_DIGEST)
            and record.epoch == self.epoch
            and _digest(record.worker) == writer[1:]
        ):
            self.writer = record.worker
        return super().feed(record)


@lru_cache(maxsize=1_024)
def _digest(writer: str) -> str:
    if writer.startswith(_KNOWN_BY_DIGEST):
        return writer[1:]
    return hashlib.sha256(writer.encode()).hexdigest()[:12]
