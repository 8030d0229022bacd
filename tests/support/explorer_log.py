"""The reply log of one job as an explorer keeps it: what the real reader has made of it so far.

Readers and take-overs fold the log from its start, so two logs that leave the reader in the same
state are the same to everybody from then on. A log is therefore named by that state: a **place**,
with one log that leads there. Records are numbered, too. Beside each one stands what its writer
believed to be visible before it: that is on no wire, and shows an answer mixed from two writers.
"""

from __future__ import annotations

from aril.schemas import (
    ClaimRecord,
    ReplyRecord,
    TokensRecord,
    VisibleStream,
)

Tokens = tuple[int, ...]
Place = int
Record = int

EMPTY: Place = 0


class ViolationError(Exception):
    """Something happened that the rule promises never to happen."""


class ExploredLog:
    """Every record and every place that was met."""

    def __init__(self) -> None:
        self._records: list[ReplyRecord] = []
        self._beliefs: list[Tokens] = []
        self._numbers: dict[tuple[ReplyRecord, Tokens], Record] = {}
        self._streams: list[VisibleStream] = []
        self._paths: list[tuple[Record, ...]] = []
        self._places: dict[object, Place] = {}
        self._next: dict[tuple[Place, Record], Place] = {}
        self.most_resets = 0
        self._place(VisibleStream(), ())

    def record(self, record: ReplyRecord, belief: Tokens) -> Record:
        """Return the number of a record whose writer believes in these tokens before it."""
        key = (record, belief)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._records)
            self._records.append(record)
            self._beliefs.append(belief)
        return number

    def value(self, record: Record) -> ReplyRecord:
        """Return the record of that number."""
        return self._records[record]

    def stream(self, place: Place) -> VisibleStream:
        """Return what a reader has there; not to be changed."""
        return self._streams[place]

    def path(self, place: Place) -> list[ReplyRecord]:
        """Return the records of a log that leads there."""
        return [self._records[number] for number in self._paths[place]]

    def append(self, place: Place, record: Record) -> Place:
        """Let a record land. Raises ViolationError if a reader then sees what it must not."""
        after = self._next.get((place, record))
        if after is None:
            after = self._next[place, record] = self._append(place, record)
        return after

    def is_spent(self, place: Place, record: Record) -> bool:
        """Whether a record can change nothing any more, since epochs never fall."""
        stream = self._streams[place]
        if not stream.finished and self._records[record].epoch >= stream.epoch:
            return False
        if self.append(place, record) != place:
            raise ViolationError("a record counts behind the terminal or below the epoch")
        return True

    def _append(self, place: Place, number: Record) -> Place:
        before, record, belief = self._streams[place], self._records[number], self._beliefs[number]
        after = before.copy()
        events = after.feed(record)
        if not events and after.snapshot() == before.snapshot():
            return place
        if before.finished:
            raise ViolationError(f"{_brief(record)} counts behind the terminal")
        if after.epoch < before.epoch:
            raise ViolationError(f"{_brief(record)} lowers the epoch {before.epoch}")
        self.most_resets = max(self.most_resets, after.resets)
        if events and not isinstance(record, ClaimRecord):
            told = belief + (record.ids if isinstance(record, TokensRecord) else ())
            if tuple(after.token_ids) != told:
                raise ViolationError(
                    f"mixed answer: {_brief(record)} follows {belief} for its writer,"
                    f" a reader has {after.token_ids}"
                )
        kept = after.token_ids[: before.count] == before.token_ids
        if not kept and after.resets == before.resets:
            raise ViolationError(f"{_brief(record)} withdraws tokens without a reset")
        return self._place(after, (*self._paths[place], number))

    def _place(self, stream: VisibleStream, path: tuple[Record, ...]) -> Place:
        # Of a terminal it matters that it is there; resets are only counted.
        key = (*stream.snapshot()[:3], stream.finished)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self._streams)
            self._streams.append(stream)
            self._paths.append(path)
        return place

    def tell(self, place: Place) -> str:
        """Say in short what a reader has there."""
        stream = self._streams[place]
        end = " finished" if stream.finished else ""
        return f"{tuple(stream.epoch)} by {stream.writer}: {stream.token_ids}{end}"

    def tell_record(self, record: Record) -> str:
        """Say in short what a record is."""
        return _brief(self._records[record])


def _brief(record: ReplyRecord) -> str:
    kind = type(record).__name__.removesuffix("Record").lower()
    index = "" if isinstance(record, ClaimRecord) else f" at {getattr(record, 'index', '-')}"
    return f"{kind}{index} of {tuple(record.epoch)} by {record.worker}"
