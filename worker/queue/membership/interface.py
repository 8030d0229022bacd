"""What is asked of a membership, and what it asks of who reads the partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from aiokafka import AIOKafkaConsumer, TopicPartition

    from aril.worker.job import Partition
    from aril.worker.queue.assignment import Membership
    from aril.worker.queue.ledger import Checkpoint


class GroupProtocolError(Exception):
    """This worker cannot be in the group; the message is one line.

    `setting` says that no waiting helps.
    """

    def __init__(self, message: str, *, setting: bool = False) -> None:
        super().__init__(message)
        self.setting = setting


class Holder(Protocol):
    """Who reads the partitions. Called on the event loop, one call at a time."""

    @property
    def resting(self) -> bool:
        """Whether no more jobs are read."""

    async def given(self, partitions: Sequence[TopicPartition], membership: Membership) -> bool:
        """Hold these as well, from now on; with none, what is held is all there is.

        False where the brokers do not tell how far they are: nothing of them is begun then.
        """

    async def taken(self, partitions: Iterable[TopicPartition], *, lost: bool = False) -> None:
        """Hold these no longer; what is finished is committed unless they are lost already."""

    def resume(self) -> None:
        """Read again what no longer rests, and let rest what is to."""

    def fail(self, error: Exception) -> None:
        """Go on no longer: the membership cannot."""


class GroupMember(Protocol):
    """One membership, from `start` to `stop`."""

    @property
    def reader(self) -> AIOKafkaConsumer:
        """The consumer through which partitions are read."""

    @property
    def generation(self) -> int:
        """The group's generation, or our epoch as its member; -1 while membership is lost."""

    async def start(self, holder: Holder) -> None:
        """Connect and join. Raises KafkaError when no broker answers, and GroupProtocolError."""

    async def stop(self) -> None:
        """Leave the group and close all connections."""

    def rejoin(self) -> None:
        """Have the group rebalance."""

    def begin(self, starts: Mapping[TopicPartition, int]) -> None:
        """Read partitions that were given from these offsets on."""

    async def committed(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, Checkpoint]:
        """Read what the group has committed; what it has not is left out. Raises KafkaError."""

    def as_whom(self, membership: Membership) -> Membership:
        """Return as whom to commit what was won under a membership."""

    async def commit(
        self, membership: Membership, checkpoints: Mapping[Partition, Checkpoint]
    ) -> Collection[Partition]:
        """Send one commit, never again; return of which partitions the broker took it."""
