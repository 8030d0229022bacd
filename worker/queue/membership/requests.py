"""Requests that aiokafka does not have: the commit of a member of KIP-848, a look at its group.

Kafka's message definitions, OffsetCommitRequest v9 and ConsumerGroupDescribeRequest v1.
"""

from __future__ import annotations

from io import BytesIO  # noqa: TC003 - aiokafka's types are looked at when they are made
from typing import TYPE_CHECKING

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aril.worker.job import Partition
    from aril.worker.queue.ledger import Checkpoint

NO_LEADER_EPOCH = -1
_TEXT = CompactString("utf-8")


class _Uuid(AbstractType):  # type: ignore[misc] # aiokafka is untyped
    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


class _OffsetCommitResponse(Response):  # type: ignore[misc] # same
    API_KEY = 8
    API_VERSION = 9
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", _TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32), ("error_code", Int16), ("tags", TaggedFields)
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _OffsetCommitStruct(RequestStruct):  # type: ignore[misc] # same
    FLEXIBLE_VERSION = True
    API_KEY = 8
    API_VERSION = 9
    RESPONSE_TYPE = _OffsetCommitResponse
    SCHEMA = Schema(
        ("group", _TEXT),
        ("member_epoch", Int32),
        ("member_id", _TEXT),
        ("instance_id", _TEXT),
        (
            "topics",
            CompactArray(
                ("topic", _TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", _TEXT),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class EpochCommitRequest(Request[_OffsetCommitStruct]):  # type: ignore[misc] # same
    """Commits offsets as a member of KIP-848, in its epoch."""

    API_KEY = 8

    def __init__(
        self, group: str, member_id: str, epoch: int, checkpoints: Mapping[Partition, Checkpoint]
    ) -> None:
        self._head = (group, epoch, member_id, None)
        topics: dict[str, list[tuple[int, int, int, str, dict[int, bytes]]]] = {}
        for source, (position, metadata) in checkpoints.items():
            untagged: dict[int, bytes] = {}
            partition = (source.partition, position, NO_LEADER_EPOCH, metadata, untagged)
            topics.setdefault(source.topic, []).append(partition)
        self._topics = [(*each, dict[int, bytes]()) for each in topics.items()]

    def build(self, request_struct_class: type[_OffsetCommitStruct]) -> _OffsetCommitStruct:
        """Make the request; see aiokafka."""
        return request_struct_class(*self._head, self._topics, {})


_ASSIGNMENT = Schema(
    (
        "topics",
        CompactArray(
            ("topic_id", _Uuid),
            ("topic", _TEXT),
            ("partitions", CompactArray(Int32)),
            ("tags", TaggedFields),
        ),
    ),
    ("tags", TaggedFields),
)


class _GroupDescribeResponse(Response):  # type: ignore[misc] # same
    API_KEY = 69
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            CompactArray(
                ("error_code", Int16),
                ("error_message", _TEXT),
                ("group", _TEXT),
                ("state", _TEXT),
                ("group_epoch", Int32),
                ("assignment_epoch", Int32),
                ("assignor", _TEXT),
                (
                    "members",
                    CompactArray(
                        ("member_id", _TEXT),
                        ("instance_id", _TEXT),
                        ("rack", _TEXT),
                        ("member_epoch", Int32),
                        ("client_id", _TEXT),
                        ("client_host", _TEXT),
                        ("topics", CompactArray(_TEXT)),
                        ("pattern", _TEXT),
                        ("assignment", _ASSIGNMENT),
                        ("target", _ASSIGNMENT),
                        ("member_type", Int8),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _GroupDescribeStruct(RequestStruct):  # type: ignore[misc] # same
    FLEXIBLE_VERSION = True
    API_KEY = 69
    API_VERSION = 1
    RESPONSE_TYPE = _GroupDescribeResponse
    SCHEMA = Schema(
        ("groups", CompactArray(_TEXT)), ("operations", Boolean), ("tags", TaggedFields)
    )


class GroupDescribeRequest(Request[_GroupDescribeStruct]):  # type: ignore[misc] # same
    """Asks a coordinator for a group of KIP-848; brokers know it from Kafka 4.0 on."""

    API_KEY = 69

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[_GroupDescribeStruct]) -> _GroupDescribeStruct:
        """Make the request; see aiokafka."""
        return request_struct_class([self._group], False, {})  # noqa: FBT003 - by place only
