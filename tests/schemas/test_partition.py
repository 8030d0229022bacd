"""The partition of a job's replies is the one that any Kafka client would compute."""

import aiokafka.partitioner
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.schemas import murmur2, reply_partition


@given(st.binary(max_size=100))
def test_murmur2_is_kafkas(data: bytes) -> None:
    """Our hash has the bits of aiokafka's, whatever the length."""
    assert murmur2(data) == aiokafka.partitioner.murmur2(data) & 0xFFFFFFFF


@given(st.text(max_size=64), st.integers(1, 1_000))
def test_default_partitioner_agrees(job: str, partitions: int) -> None:
    """A client that leaves the choice to Kafka's default partitioner reads the right partition."""
    everyone = list(range(partitions))
    default = aiokafka.partitioner.DefaultPartitioner()(job.encode(), everyone, everyone)
    assert reply_partition(job, partitions) == default


def test_a_topic_has_partitions() -> None:
    """No partitions is an error of the caller, not a division by zero."""
    with pytest.raises(ValueError, match="at least one partition"):
        reply_partition("j", 0)
