"""What the protocol's cost is measured against: a worker without it that does the same work."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from aril.worker.queue.ledger import Ledger
from benchmarks.plain_worker import PlainLedger

if TYPE_CHECKING:
    import random

SWITCHED_OFF = """
from benchmarks.plain_worker import PlainLedger, switch_off
from aril.schemas import Epoch
from aril.schemas.unpack import unpack_map
from aril.worker.job import Partition
from aril.worker.queue.ledger import Checkpoint
from aril.worker.queue.assignment import Identity, Membership, PartitionState
from aril.worker.replies.stream import ReplyStream

switch_off()
stream = ReplyStream(job="j", epoch=Epoch(4, 1), worker="w")
stream.add((7, 8), "text")
(record,) = stream.take()
fields = unpack_map(record, 1_000)
assert sorted(fields) == ["ids", "job", "kind", "text", "v"], fields
source = Partition("jobs", 0)
state = PartitionState(source, Membership(1, 1, "m"), 100, Checkpoint(5, ""))
assert isinstance(state.ledger, PlainLedger)
for offset in range(5, 9):
    assert state.read(offset)
    assert state.identify("acme", "same", b"")[0] is Identity.NEW
state.finish_offset(7)
assert state.to_commit() is None, "nothing but the finished prefix is committed"
state.finish_offset(5)
assert state.to_commit() == Checkpoint(6, "")
"""


@given(st.lists(st.integers(0, 3), max_size=40), st.randoms())
def test_the_plain_ledger_commits_the_same_positions(gaps: list[int], drawn: random.Random) -> None:
    """Whatever the log skips and in whatever order jobs end, both have the same finished prefix."""
    whole, plain = Ledger(3), PlainLedger(3)
    offset, read = 3, []
    for gap in gaps:
        offset += gap
        assert whole.read(offset) == plain.read(offset)
        read.append(offset)
        offset += 1
    drawn.shuffle(read)
    for each in read:
        whole.finish(each)
        plain.finish(each)
        assert whole.position == plain.position
    assert whole.next_offset == plain.next_offset


def test_what_is_off_is_off() -> None:
    """In a process of its own: records, commits and identities without the protocol's part."""
    subprocess.run([sys.executable, "-c", SWITCHED_OFF], check=True)
