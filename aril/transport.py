"""The seam between the client and a broker: what the client needs of one.

`aril.kafka` does it with Kafka; `aril.memory` has the in-memory twin, so that a tenant's program
is testable without a broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Partitions(NamedTuple):
    """How many partitions the two topics of a tenant have."""

    jobs: int
    replies: int


class Fetched(NamedTuple):
    """One record of the reply topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class OutOfRange(Exception):  # noqa: N818 - named for what happened
    """The followed offset of this partition is outside of what its log holds."""

    def __init__(self, partition: int) -> None:
        super().__init__(f"partition {partition} does not hold the offset to read")
        self.partition = partition


class Transport(Protocol):
    """One producer of jobs and one group-less reader of a reply topic.

    Every method raises `BrokerUnavailable` when the brokers cannot be reached or refuse.
    """

    async def open(self) -> Partitions:
        """Connect. Raises `TopicMissing` if one of the two topics does not exist."""

    async def close(self) -> None:
        """Disconnect. Called once no `poll` is running."""

    async def send(
        self,
        partition: int,
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Append a record to the jobs topic and wait until every in-sync replica has it."""

    async def log_start(self, partition: int) -> int:
        """Return the first offset that a reply partition still holds."""

    async def log_end(self, partition: int) -> int:
        """Return the offset that the next record of a reply partition will get."""

    def follow(self, partition: int, offset: int) -> None:
        """Let `poll` give the records of a reply partition from `offset` on."""

    def unfollow(self, partition: int) -> None:
        """Let `poll` give nothing more of a reply partition."""

    async def poll(self) -> Sequence[Fetched]:
        """Return what has arrived, after a short wait also nothing; each partition in order.

        Never cancelled. Raises `OutOfRange` when a followed offset is not in the log.
        """
