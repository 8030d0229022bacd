r"""What librdkafka tells of a membership: the bytes of `consumer_group_metadata`, read strictly.

librdkafka means them for its own transactions and says only that they are opaque. They are made by
`rd_kafka_consumer_group_metadata_write`; tests/worker/queue/membership/test_metadata.py pins them:

    "CGMDv2:" , int32 generation in the machine's order , group 0 , member 0 , "\1" or instance 0

In a group of KIP-848 the generation is the member's epoch: 0 or less while it is in no group.
"""

from __future__ import annotations

import sys
from typing import Final, NamedTuple

MAGIC: Final = b"CGMDv2:"
NO_INSTANCE: Final = b"\x01"
_EPOCH_BYTES: Final = 4


class Identity(NamedTuple):
    """Who a member is now."""

    member_id: str
    epoch: int  # 0 or less: in no group


def identity_of(told: bytes, group: str) -> Identity:
    """Read what librdkafka tells of the member of a group. Raises ValueError."""
    head = len(MAGIC) + _EPOCH_BYTES
    if not told.startswith(MAGIC) or len(told) < head:
        raise ValueError("librdkafka's group metadata has another layout")
    epoch = int.from_bytes(told[len(MAGIC) : head], sys.byteorder, signed=True)
    parts = told[head:].split(b"\0")
    if parts[0] != group.encode() or parts[2:] != [NO_INSTANCE]:
        raise ValueError("librdkafka's group metadata has another layout")
    return Identity(parts[1].decode("ascii"), epoch)
