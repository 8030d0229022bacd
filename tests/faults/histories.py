"""A good history, small enough to be spoilt by hand: what the checker is tested with."""

from __future__ import annotations

from typing import Any

from aril.schemas import ClaimRecord, DoneRecord, Epoch, ReplyRecord, Timings, TokensRecord, Usage
from tests.faults.history import Asked, Committed, Dead, History, Input, Logged, Name, fold
from tests.support.fault_content import shown, text_of, tokens_of

A, B = Name("acme", "job-1"), Name("blackbeard", "job-1")
TOKENS = 6
FIRST, SECOND = Epoch(3, 1), Epoch(4, 1)


def tokens(
    name: Name,
    index: int,
    epoch: Epoch = FIRST,
    worker: str = "w1",
    digest: str | None = None,
) -> TokensRecord:
    """Make the record of one token."""
    ids = tokens_of(*name, index, index + 1, digest)
    start, stop = shown(index), TOKENS if index + 1 == TOKENS else shown(index + 1)
    text = text_of(*name, start, stop, digest)
    return TokensRecord(job=name.job, epoch=epoch, worker=worker, index=index, ids=ids, text=text)


def done(name: Name, epoch: Epoch = FIRST, worker: str = "w1", **other: Any) -> DoneRecord:
    """Make a terminal."""
    told: dict[str, Any] = {
        "index": TOKENS,
        "text": "",
        "adapter": None,
        "digest": None,
    } | other
    return DoneRecord(
        job=name.job,
        epoch=epoch,
        worker=worker,
        finish_reason="length",
        usage=Usage(1, TOKENS),
        base="tagged",
        seed=1,
        timings=Timings(0, 0, 0),
        **told,
    )


def claim(name: Name, epoch: Epoch = SECOND, worker: str = "w2") -> ClaimRecord:
    """Make a claim."""
    return ClaimRecord(job=name.job, epoch=epoch, worker=worker)


def log_of(tenant: str, records: list[ReplyRecord]) -> list[Logged]:
    """Put records into a tenant's topic, one a second."""
    return [
        Logged(tenant, 0, offset, 1_000 * (offset + 1), record.job.encode(), record)
        for offset, record in enumerate(records)
    ]


def records_of(name: Name) -> list[ReplyRecord]:
    """Make a job's log: begun by one worker, killed, taken over by another; eleven records."""
    return [
        *(tokens(name, index) for index in range(3)),
        claim(name),
        *(tokens(name, index, SECOND, "w2") for index in range(3, TOKENS)),
        tokens(name, 3),  # a zombie, too late
        done(name, SECOND, "w2"),
    ]


def history_of(a: list[ReplyRecord], b: list[ReplyRecord]) -> History:
    """Make the history of two jobs and one poison record."""
    logs = {A: log_of(A.tenant, a), B: log_of(B.tenant, b)}
    return History(
        asked=[Asked(A, TOKENS), Asked(B, TOKENS)],
        log=[*logs[A], *logs[B]],
        live=[(name, fold(log).events) for name, log in logs.items()],
        inputs=[Input(0, 0, A, 500), Input(0, 1, None), Input(0, 2, B, 700)],
        dead=[Dead(0, 1, 2_000), Dead(0, 1, 2_500)],
        committed=[Committed(500, 0, 0), Committed(99_000, 0, 2, (range(2, 3),))],
    )


def good() -> History:
    """Return a history without fault."""
    return history_of(records_of(A), records_of(B))
