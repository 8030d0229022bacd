"""Random logs of one job as a bad day writes them, for property tests of their readers.

Workers take the job over, come back as zombies, write late, twice and beside each other: every
record is well formed, which of them count is the reader rule's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from aril.schemas import (
    ClaimRecord,
    DoneRecord,
    Epoch,
    ErrorCode,
    ErrorRecord,
    ReleaseRecord,
    ReplyRecord,
    Timings,
    TokensRecord,
    Usage,
    VisibleStream,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKERS = ("w-0", "w-1", "w-2")
Move = tuple[str, int, int, int]
"""What, by which worker, in which generation, and how far beside the place where it would count."""


def moves(*, most: int = 25) -> st.SearchStrategy[list[Move]]:
    """Draw what workers do; mostly they write tokens where these count."""
    kinds = ("tokens",) * 6 + ("claim", "claim", "release", "done", "error")
    move = st.tuples(
        st.sampled_from(kinds),
        st.integers(0, len(WORKERS) - 1),
        st.integers(1, 3),
        st.sampled_from((0, 0, 0, 0, 0, 0, -99, -1, 1)),
    )
    return st.lists(move, max_size=most)


def written(job: str, drawn: Sequence[Move]) -> list[ReplyRecord]:
    """Return the records of these moves, each at the place where it would count, or beside it."""
    stream = VisibleStream()
    records: list[ReplyRecord] = []
    for number, (kind, worker, generation, beside) in enumerate(drawn):
        epoch = Epoch(generation, 1)
        index = max(0, stream.count + beside)
        record = _record(job, kind, WORKERS[worker], epoch, index, number)
        stream.feed(record)
        records.append(record)
    return records


def _record(job: str, kind: str, worker: str, epoch: Epoch, index: int, number: int) -> ReplyRecord:
    if kind == "claim":
        return ClaimRecord(job=job, epoch=epoch, worker=worker)
    if kind == "release":
        return ReleaseRecord(job=job, epoch=epoch, worker=worker)
    if kind == "error":
        return ErrorRecord(
            job=job,
            epoch=epoch,
            worker=worker,
            index=index,
            code=ErrorCode.CANCELLED,
            message="by a test",
            retryable=False,
        )
    if kind == "done":
        return DoneRecord(
            job=job,
            epoch=epoch,
            worker=worker,
            index=index,
            text="",
            finish_reason="stop",
            usage=Usage(1, index),
            adapter=None,
            digest=None,
            base="fake",
            seed=0,
            timings=Timings(0.1, 0.2, 0.3),
        )
    ids = tuple(range(number, number + 1 + number % 3))
    return TokensRecord(
        job=job, epoch=epoch, worker=worker, index=index, ids=ids, text=f" {number}"
    )
