"""What one broker was told of the partitions that are read from it: a fetch session. Pure.

A broker remembers them (KIP-227), so a request says what has changed since the last one and an
answer holds what has come: reading some of ten thousand partitions costs what those some cost.
Brokers that make no session are told everything each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aril.fetching.place import Place

NO_SESSION: Final = 0
FIRST: Final = 0  # the epoch of a request that begins a session
LAST_EPOCH: Final = 2**31 - 1


class Ask(NamedTuple):
    """One request: the session, its epoch, from where to read, and what not to read any more."""

    session: int
    epoch: int
    read: list[tuple[Place, int]]
    forget: list[Place]


class FetchSession:
    """The partitions wanted of one broker, each from an offset on, and what it was told of them."""

    def __init__(self) -> None:
        self._wanted: dict[Place, int] = {}
        self._told: dict[Place, int] = {}
        self._changed: set[Place] = set()
        self._session = NO_SESSION
        self._epoch = FIRST

    def __bool__(self) -> bool:
        return bool(self._wanted)

    def __iter__(self) -> Iterator[Place]:
        return iter([*self._wanted])

    def want(self, place: Place, offset: int) -> None:
        """Read this partition, from `offset` on."""
        self._wanted[place] = offset
        self._changed.add(place)

    def drop(self, place: Place) -> None:
        """Read this partition no more; harmless if it is not."""
        if self._wanted.pop(place, None) is not None:
            self._changed.add(place)

    def ask(self) -> Ask:
        """Return the next request, which the broker is taken to know from now on.

        It is answered or lost before another one is asked for.
        """
        if self._epoch == FIRST:
            self._told = dict(self._wanted)
            self._changed.clear()
            return Ask(NO_SESSION, FIRST, [*self._told.items()], [])
        read, forget = [], []
        for place in self._changed:
            offset = self._wanted.get(place)
            if offset is not None:
                if self._told.get(place) != offset:
                    self._told[place] = offset
                    read.append((place, offset))
            elif self._told.pop(place, None) is not None:
                forget.append(place)
        self._changed.clear()
        return Ask(self._session, self._epoch, read, forget)

    def answered(self, session: int) -> None:
        """Note the session that an answer without an error belongs to; 0: the broker makes none."""
        self._session = session
        if session == NO_SESSION:
            self._epoch = FIRST
        else:
            self._epoch = self._epoch + 1 if self._epoch < LAST_EPOCH else FIRST + 1

    def lost(self) -> None:
        """Begin anew: the broker has forgotten the session, or it is unknown what it knows."""
        self._session, self._epoch = NO_SESSION, FIRST
        self._told.clear()

    def asked(self, place: Place) -> int | None:
        """Return from where what came in of a partition was read, if it is still wanted from there.

        None: the reader has gone elsewhere meanwhile, or rests.
        """
        offset = self._told.get(place)
        return offset if self._wanted.get(place) == offset else None
