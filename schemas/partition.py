"""Where a job's replies go: Kafka's default partitioner, computed by us and passed to the producer.

Source: the murmur2 of Kafka's Java client (org.apache.kafka.common.utils.Utils), which clients of
other languages implement too; `schemas/vectors/partitions.json` has values to check one against.
"""

from typing import Final

_MASK: Final = 0xFFFFFFFF
_MULTIPLIER: Final = 0x5BD1E995
_SEED: Final = 0x9747B28C
_SHIFT: Final = 24


def murmur2(data: bytes) -> int:
    """Return Kafka's 32-bit murmur2 of `data`, unsigned; Java returns the same bits signed."""
    length = len(data)
    state = _SEED ^ length
    tail = length & ~3
    for at in range(0, tail, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _MULTIPLIER & _MASK
        word ^= word >> _SHIFT
        state = (state * _MULTIPLIER & _MASK) ^ (word * _MULTIPLIER & _MASK)
    if tail != length:
        state ^= int.from_bytes(data[tail:], "little")
        state = state * _MULTIPLIER & _MASK
    state ^= state >> 13
    state = state * _MULTIPLIER & _MASK
    return state ^ state >> 15


def reply_partition(job_id: str, partitions: int) -> int:
    """Return the partition in [0, partitions) of a job that asked for none."""
    if partitions < 1:
        raise ValueError(f"a topic has at least one partition, not {partitions}")
    if partitions == 1:  # as most topics of replies are
        return 0
    return (murmur2(job_id.encode()) & 0x7FFFFFFF) % partitions
