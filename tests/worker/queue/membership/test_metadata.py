"""The bytes in which librdkafka tells who a member is."""

from __future__ import annotations

import contextlib
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aril.worker.queue.membership.metadata import MAGIC, Identity, identity_of

NAMES = st.text("abcdefghij._-", min_size=1, max_size=40)


def told(group: str, member: str, epoch: int, end: bytes = b"\x01") -> bytes:
    """Write what librdkafka writes."""
    number = epoch.to_bytes(4, sys.byteorder, signed=True)
    return MAGIC + number + b"\0".join([group.encode(), member.encode(), end])


@given(NAMES, NAMES, st.integers(-(2**31), 2**31 - 1))
@example("g\u00e4ste", "ab+/", 0)
def test_an_identity_is_read_as_it_was_written(group: str, member: str, epoch: int) -> None:
    """Also epochs with bytes that are zero, and names that are not ASCII."""
    assert identity_of(told(group, member, epoch), group) == Identity(member, epoch)


@pytest.mark.parametrize(
    "other",
    [
        b"",
        MAGIC,
        b"CGMDv3:" + told("g", "m", 1)[len(MAGIC) :],
        told("another", "m", 1),
        told("g", "m", 1) + b"more",
        told("g", "m", 1, end=b"instance"),
        told("g", "m", 1)[:-2],
    ],
)
def test_another_layout_is_refused(other: bytes) -> None:
    """A version that writes it otherwise stops the worker: a wrong epoch would fence nobody."""
    with pytest.raises(ValueError, match="another layout"):
        identity_of(other, "g")


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(noise: bytes) -> None:
    """Nothing else is raised."""
    with contextlib.suppress(ValueError):
        identity_of(MAGIC + noise, "g")
