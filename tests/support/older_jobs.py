"""Jobs that another worker began: what it wrote, and what stands in the log in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aril.schemas import (
    ClaimRecord,
    Epoch,
    Job,
    ReplyRecord,
    TokensRecord,
    encode_reply,
    reply_partition,
)
from tests.support.harness import REPLY_PARTITIONS

if TYPE_CHECKING:
    from tests.support.harness import Harness

OLD = 5  # the offset below which jobs are not fresh


def job(name: str = "j1", **fields: Any) -> Job:
    """Return a job that anybody would accept."""
    fields.setdefault("prompt", f"prompt of {name}")
    return Job(id=name, tenant="acme", **fields)


def before(harness: Harness, *records: ReplyRecord) -> None:
    """Let earlier owners have written."""
    for record in records:
        where = reply_partition(record.job, REPLY_PARTITIONS)
        log = harness.writer.logs["replies.acme", where]
        log.append((record.job.encode(), encode_reply(record), {}))


def tokens(index: int, *ids: int, epoch: tuple[int, int] = (2, 1), worker: str = "w0") -> Any:
    """Return a record of an earlier owner."""
    text = "".join(chr(96 + each) for each in ids)
    return TokensRecord(
        job="j1", epoch=Epoch(*epoch), worker=worker, index=index, ids=ids, text=text
    )


def claim(epoch: tuple[int, int], worker: str, *, alone: bool = False) -> ClaimRecord:
    """Return the claim of an earlier owner."""
    return ClaimRecord(job="j1", epoch=Epoch(*epoch), worker=worker, alone=alone)


def kinds(harness: Harness, name: str = "j1") -> list[str]:
    """Return the kinds of a job's records, in log order."""
    return [
        type(each).__name__.removesuffix("Record").lower() for each in harness.replies("acme", name)
    ]
