"""Entries of jobs by hand, for tests of what holds them."""

from __future__ import annotations

from aril.schemas import Epoch, Job
from aril.worker.job import Entry, Partition, Record
from aril.worker.stages import Life, Stage

JOBS = Partition("jobs", 0)
EPOCH = Epoch(3, 1)


def entry_of(
    name: str,
    *,
    offset: int = 0,
    epoch: Epoch = EPOCH,
    owned: bool = False,
    stage: Stage = Stage.ARRIVED,
    reply_from: int | None = None,
) -> Entry:
    """Return the entry of a tenant's job in the first partition."""
    return Entry(
        key=offset,
        record=Record(JOBS, offset, 0, None, b"", ()),
        tenant="acme",
        job_id=name,
        job=Job(id=name, tenant="acme", prompt="?", reply_from=reply_from),
        digest=b"",
        generation=epoch.generation,
        epoch=epoch,
        owned=owned,
        deadline_ms=0.0,
        reply_topic="replies.acme",
        wanted_partition=None,
        life=Life(stage),
    )
