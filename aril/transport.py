"""The seam between clients and a broker: what a connection needs of one.

`aril.kafka` does it with Kafka; `aril.memory` has the in-memory twin, so that a tenant's program
is testable without a broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aril.fetching.place import Fetched, Place

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Fetched", "OutOfRange", "Place", "Transport", "Unreadable"]


class Unreadable(Exception):  # noqa: N818 - named for what happened
    """A followed partition is not read any more; the others are."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(f"{place.topic}/{place.partition}: {reason}")
        self.place = place
        self.reason = reason


class OutOfRange(Unreadable):
    """The followed offset of this partition is outside of what its log holds."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, "its log does not hold the offset to read")


class Transport(Protocol):
    """One producer of jobs and one group-less reader of any number of reply topics.

    Every method raises `BrokerUnavailable` when the brokers cannot be reached or refuse.
    """

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Disconnect. Called once no `poll` is running."""

    async def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has; asked anew at the latest ten minutes later.

        Raises `TopicMissing` if it does not exist.
        """

    async def send(
        self,
        place: Place,
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Append a record and wait until every in-sync replica has it."""

    async def log_start(self, place: Place) -> int:
        """Return the first offset that a partition still holds."""

    async def log_end(self, place: Place) -> int:
        """Return the offset that the next record of a partition will get."""

    async def offset_at(self, place: Place, time_ms: int) -> int:
        """Return the first offset whose record is not older than a time, else the end's.

        The time is in milliseconds since 1970, by the broker's clock or the producer's as the topic
        is set.
        """

    def position(self, place: Place) -> int | None:
        """Return the offset below which `poll` has given all; None if it is not followed.

        Only between two polls, and before anything is awaited.
        """

    def follow(self, place: Place, offset: int) -> None:
        """Let `poll` give the records of a partition from `offset` on, and no earlier ones."""

    def unfollow(self, place: Place) -> None:
        """Let `poll` give nothing more of a partition; harmless if it gives nothing."""

    async def poll(self) -> Sequence[Fetched]:
        """Return what has arrived, after a short wait also nothing; each partition in order.

        Never cancelled. Raises `Unreadable` of a partition that gives nothing any more, in its
        subclass `OutOfRange` when the followed offset is not in the log.
        """
