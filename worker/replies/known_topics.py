"""What a worker knows of reply topics: how many partitions each has, and which are not there. Pure.

The number never changes, so it is asked for once. Of both kinds there are so many at most: tenants
come and go, and whoever sends jobs may name any.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

KNOWN: Final = 50_000  # about 80 bytes each: 4 MB
MISSING: Final = 10_000
# How long "no such topic" is believed, so that a flood for one costs one look-up a while.
MISSING_SECONDS: Final = 2.0


class KnownTopics:
    """Topics by name. Times are seconds of any monotonic clock."""

    def __init__(self) -> None:
        self._partitions: dict[str, int] = {}
        self._missing: dict[str, float] = {}  # until when that is believed

    def partitions(self, topic: str) -> int | None:
        """Return how many partitions a topic has; None if that is not known."""
        return self._partitions.get(topic)

    def is_missing(self, topic: str, now: float) -> bool:
        """Tell whether a topic was not there a moment ago."""
        return self._missing.get(topic, now) > now

    def in_use(self) -> list[str]:
        """Return the topics that are known, the newest last."""
        return [*self._partitions]

    def found(self, topic: str, partitions: int) -> None:
        """Note how many partitions a topic has."""
        if len(self._partitions) >= KNOWN:  # the older half is asked for again when it is used
            self._partitions = dict(islice(self._partitions.items(), KNOWN // 2, None))
        self._partitions[topic] = partitions

    def not_found(self, topic: str, now: float) -> None:
        """Note that a topic is not there."""
        if len(self._missing) >= MISSING:  # a flood of made-up tenants
            self._missing = {name: until for name, until in self._missing.items() if until > now}
        if len(self._missing) < MISSING:
            self._missing[topic] = now + MISSING_SECONDS

    def look_again(self, topic: str) -> None:
        """Believe no longer that a topic is not there: it was just created."""
        self._missing.pop(topic, None)
