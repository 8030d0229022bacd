"""Commits under the generation that the work was done in, and never under another.

aiokafka's own ``commit`` takes whatever generation the consumer has by then and retries, so a
completion of an older assignment can be committed under a newer one. Here each OffsetCommit goes
out once, with the generation and member id that were captured at assignment. It is not retried:
any error, and a time-out, means "not committed", and the next round asks again if the partition is
still ours. What was committed is read past aiokafka's ``committed``, which drops the metadata. Both
use aiokafka's private coordinator; tests/worker/queue/test_consumer.py pins it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Protocol

from aiokafka import errors
from aiokafka.protocol.commit import OffsetCommitRequest

from aril.worker.job import Partition
from aril.worker.observe.logs import get_logger
from aril.worker.queue.assignment import Membership
from aril.worker.queue.ledger import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping

    from aiokafka import AIOKafkaConsumer, TopicPartition

    from aril.worker.queue.assignment import PartitionState

log = get_logger(__name__)

# The broker answers in milliseconds; past this the coordinator is in trouble and a rebalance near.
COMMIT_TIMEOUT_SECONDS = 5.0

# What is under way is a hint, and alone no reason to commit as often as what is finished.
TELL_SECONDS = 1.0

_MOVED = {
    errors.NotCoordinatorForGroupError.errno,
    errors.GroupCoordinatorNotAvailableError.errno,
}
# KIP-848's, which aiokafka does not know.
_OF_MEMBERS = {110: "FencedMemberEpochError", 113: "StaleMemberEpochError"}

# Of one request: the broker keeps what a request commits as one batch of records, and takes none
# above its message.max.bytes, a megabyte by default.
COMMIT_BYTES = 512 << 10
# A partition's record beside topic and metadata: a little less was measured, and a long group name.
RECORD_BYTES = 200 + 250


class Committer(Protocol):
    """A membership that commits; see `aril.worker.queue.membership.interface.GroupMember`."""

    def as_whom(self, membership: Membership) -> Membership:
        """Return as whom to commit what was won under a membership."""

    async def commit(
        self, membership: Membership, checkpoints: Mapping[Partition, Checkpoint]
    ) -> Collection[Partition]:
        """Send one commit, never again; return of which partitions the broker took it."""


class Commits:
    """What one member of the group commits, one request at a time."""

    def __init__(self, *, told: Callable[[float, bool], None] = lambda *_: None) -> None:
        """`told` hears of each commit: its seconds, and whether the broker took it."""
        self._told = told
        self._committer: Committer | None = None
        self._lock = asyncio.Lock()
        self._tell_at = 0.0

    def speak_through(self, committer: Committer) -> None:
        """Commit as this member from now on."""
        self._committer = committer

    async def commit(self, states: Callable[[], Iterable[PartitionState]]) -> None:
        """Commit what is finished of partitions, where it grew; each second also what is begun.

        One under way ends first; `states` are asked for after that, when they may be others.
        """
        async with self._lock:
            now = time.monotonic()
            if telling := now >= self._tell_at:
                self._tell_at = now + TELL_SECONDS
            by_member: dict[Membership, dict[PartitionState, Checkpoint]] = {}
            for state in states():
                checkpoint = state.to_commit(telling=telling or state.revoked)
                if checkpoint is not None:
                    by_member.setdefault(self._as_whom(state), {})[state] = checkpoint
            for membership, checkpoints in by_member.items():
                for part in parts_of(checkpoints):
                    if not await self._send(membership, part):
                        break  # nothing of it was taken: the others would fare no better

    async def prove(self, state: PartitionState, base: int) -> bool:
        """Prove that we own a partition: commit what is finished of it, with a base for epochs.

        The broker takes it only under the membership that the partition was won in. False as well
        when the assignment has ended, and when nothing of the partition is known yet.
        """
        async with self._lock:
            checkpoint = state.checkpoint(base)
            if state.revoked or checkpoint is None:
                return False
            accepted = await self._send(self._as_whom(state), {state: checkpoint})
            if accepted:
                state.base = base
            return accepted

    def _as_whom(self, state: PartitionState) -> Membership:
        return self._speaker.as_whom(state.membership)

    @property
    def _speaker(self) -> Committer:
        assert self._committer is not None, "a member is there before its partitions are"  # noqa: S101 - ours
        return self._committer

    async def _send(
        self, membership: Membership, checkpoints: Mapping[PartitionState, Checkpoint]
    ) -> bool:
        """Commit, and remember it where the broker took it; return whether it took any of it."""
        begun = time.monotonic()
        taken = await self._speaker.commit(
            membership, {state.source: checkpoint for state, checkpoint in checkpoints.items()}
        )
        self._told(time.monotonic() - begun, len(taken) == len(checkpoints))
        for state, checkpoint in checkpoints.items():
            if state.source in taken:
                state.committed = checkpoint
        return bool(taken)


def parts_of(
    checkpoints: Mapping[PartitionState, Checkpoint],
) -> Iterator[dict[PartitionState, Checkpoint]]:
    """Split what is to be committed into as many requests as it takes."""
    part: dict[PartitionState, Checkpoint] = {}
    size = 0
    for state, checkpoint in checkpoints.items():
        more = len(state.source.topic) + len(checkpoint.metadata) + RECORD_BYTES
        if part and size + more > COMMIT_BYTES:
            yield part
            part, size = {}, 0
        part[state] = checkpoint
        size += more
    if part:
        yield part


def membership_of(consumer: AIOKafkaConsumer, number: int) -> Membership | None:
    """Capture who we are in the group now; None while membership is lost."""
    coordinator = consumer._coordinator  # noqa: SLF001 - the generation is kept nowhere else
    if coordinator is None or coordinator.generation < 0:  # none before the consumer is started
        return None
    return Membership(number, coordinator.generation, coordinator.member_id)


async def committed_offsets(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, Checkpoint]:
    """Read what the group has committed, in one round trip; what it has not is left out.

    Brokers that keep no metadata give an empty one. Raises KafkaError.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 - see the module's docstring
    found = await coordinator.fetch_committed_offsets(list(partitions))
    return {each: Checkpoint(offset, text or "") for each, (offset, text) in found.items()}


async def commit_offsets(
    consumer: AIOKafkaConsumer,
    group: str,
    membership: Membership,
    checkpoints: Mapping[Partition, Checkpoint],
) -> Collection[Partition]:
    """Send one OffsetCommit of the classic protocol; return of which the broker took it."""
    if membership.generation < 0:
        raise ValueError("a commit without a generation would be taken from anybody")
    topics: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for source, (position, metadata) in checkpoints.items():
        topics[source.topic].append((source.partition, position, metadata))
    request = OffsetCommitRequest(
        group,
        membership.generation,
        membership.member_id,
        OffsetCommitRequest.DEFAULT_RETENTION_TIME,
        list(topics.items()),
    )
    coordinator = consumer._coordinator  # noqa: SLF001 - see the module's docstring
    send, forget = coordinator._send_req, coordinator.coordinator_dead  # noqa: SLF001 - same
    return await send_commit(request, send, forget)


async def send_commit(
    request: Any, send: Callable[[Any], Awaitable[Any]], forget: Callable[[], object]
) -> Collection[Partition]:
    """Send an OffsetCommit of any kind; return of which partitions the broker took it.

    `send` asks the group's coordinator, which `forget` lets be looked for again.
    """
    try:
        async with asyncio.timeout(COMMIT_TIMEOUT_SECONDS):
            response = await send(request)
    except (errors.KafkaError, TimeoutError, OSError) as error:
        log.warning("commit_failed", error=type(error).__name__)
        return ()
    return _accepted(response, forget)


def _accepted(response: Any, forget: Callable[[], object]) -> Collection[Partition]:
    told = {
        Partition(topic, number): code
        for topic, partitions, *_ in response.topics
        for number, code, *_ in partitions
    }
    failures = {*told.values()} - {0}
    if failures & _MOVED:
        forget()  # so that the next heartbeat, or request, looks for the new one
    if failures:
        log.warning("commit_refused", errors=sorted(map(_name, failures)))
    return {source for source, code in told.items() if not code}


def _name(code: int) -> str:
    return _OF_MEMBERS.get(code) or errors.for_code(code).__name__
