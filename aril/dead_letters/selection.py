"""Which letters are meant, and the newest or oldest so many of them. Pure."""

from __future__ import annotations

import heapq
import itertools
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.dead_letters.letter import Note, Place, read

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aril.dead_letters.letter import Identity, Letter, Raw

_AGO: Final = re.compile(r"(\d{1,9})([smhd])")
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a letter must be like; an empty set asks for nothing.

    Times are when it was put aside, in milliseconds since the epoch: `since_ms` and later,
    before `until_ms`.
    """

    reasons: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    places: frozenset[Place] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def everything(self) -> bool:
        """Whether no letter is left out."""
        return self == Selection()

    def takes(self, letter: Letter) -> bool:
        """Tell whether a letter is meant. Of places and ids one is enough: both name letters."""
        named = letter.asked.job_id in self.ids or letter.source in self.places
        return (
            (named or not (self.ids or self.places))
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.tenants or letter.asked.tenant in self.tenants)
            and (self.since_ms is None or letter.put_aside_ms >= self.since_ms)
            and (self.until_ms is None or letter.put_aside_ms < self.until_ms)
        )


class Chosen(NamedTuple):
    """A letter, how often it stands in the log, and the notes that it was replayed."""

    letter: Letter
    copies: int
    notes: tuple[Note, ...]


class Letters:
    """The letters of a log that are meant, each once; at most `most` of them are kept."""

    def __init__(
        self,
        selection: Selection,
        *,
        jobs_topic: str,
        most: int,
        newest: bool = True,
        bodies: bool = False,
    ) -> None:
        """Prepare; `bodies` keeps values too, which may be a megabyte each."""
        self._selection = selection
        self._jobs_topic = jobs_topic
        self._most = most
        self._sign = 1 if newest else -1
        self._bodies = bodies
        self._copies: Counter[Identity] = Counter()
        self._notes: defaultdict[Identity, list[Note]] = defaultdict(list)
        self._kept: list[tuple[int, int, Letter]] = []  # a heap: what goes first is on top
        self._numbers = itertools.count()
        self.strangers = 0  # records that are no letters

    @property
    def found(self) -> int:
        """How many letters are meant, kept or not."""
        return len(self._copies)

    def add(self, raw: Raw) -> None:
        """Take the next record of a partition."""
        read_as = read(raw, jobs_topic=self._jobs_topic)
        if read_as is None:
            self.strangers += 1
        elif isinstance(read_as, Note):
            self._notes[read_as.letter].append(read_as)
        elif self._selection.takes(read_as):
            self._copies[read_as.identity] += 1
            if self._copies[read_as.identity] == 1:
                self._keep(read_as if self._bodies else read_as.lean())

    def _keep(self, letter: Letter) -> None:
        entry = (self._sign * letter.put_aside_ms, self._sign * next(self._numbers), letter)
        if len(self._kept) < self._most:
            heapq.heappush(self._kept, entry)
        else:
            heapq.heappushpop(self._kept, entry)

    def chosen(self) -> list[Chosen]:
        """Return what is kept, the newest (or the oldest) first."""
        return [
            Chosen(
                letter,
                self._copies[letter.identity],
                tuple(sorted(self._notes[letter.identity], key=lambda note: note.at_ms)),
            )
            for _, _, letter in sorted(self._kept, reverse=True)
        ]


def named(texts: Iterable[str]) -> tuple[frozenset[Place], frozenset[str]]:
    """Tell places from ids of jobs, in which there is no slash. Raises ValueError."""
    texts = frozenset(texts)
    places = frozenset(text for text in texts if "/" in text)
    return frozenset(map(Place.parse, places)), texts - places


def moment_ms(text: str, now_ms: float) -> int:
    """Return what a time means: `90m` is so long ago, else ISO 8601, UTC if it says no zone.

    Raises ValueError.
    """
    if ago := _AGO.fullmatch(text):
        return int(now_ms) - int(ago[1]) * _UNIT_MS[ago[2]]
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000)


def moment(at_ms: int) -> str:
    """Return a time as it is shown, and as `moment_ms` reads it."""
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
