"""Where the answer to a job begins, for a caller that kept nothing but the job's id.

Replies are found by their place, not by their job, so this reads the log: every record of the job's
partition from `since` on, or from the log's start, up to the job's first. A caller that knows about
when it sent the job reads what was answered since; one that does not may read all that is kept of
one partition. The other streams of the connection that are on this partition wait meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aril.errors import BadToken, ClientClosed, StreamLost
from aril.router import Inbox
from aril.schemas import (
    ClaimRecord,
    DecodeError,
    Epoch,
    ReleaseRecord,
    decode_redirect,
    decode_reply,
    reply_partition,
)
from aril.schemas.reader import BEFORE_ALL
from aril.stream import ResumeToken
from aril.transport import Place

if TYPE_CHECKING:
    from aril.link import Link
    from aril.transport import Fetched

MS: Final = 1_000


async def find(
    link: Link,
    topic: str,
    job: str,
    *,
    since: float | None = None,
    partition: int | None = None,
) -> ResumeToken:
    """Return the token of an answer's beginning, among the replies of `topic`.

    `since` is in seconds since 1970, at or before the moment at which the job was sent; `partition`
    the one that the job named, if it named one. Raises `StreamLost` if there is nothing of the job,
    or only what is not its beginning, `BadToken` if there is no such partition.
    """
    count = await link.partitions(topic)
    if partition is not None and not 0 <= partition < count:
        raise BadToken(f"{topic} has no partition {partition}: it has {count}")
    place = Place(topic, reply_partition(job, count) if partition is None else partition)
    transport = link.transport
    start = await transport.log_start(place)
    end = await transport.log_end(place)
    if since is not None:
        start = max(start, await transport.offset_at(place, int(since * MS)))
    if link.closing:
        raise ClientClosed("the connection is being closed")
    news = asyncio.Event()
    scout = _Scout(job, place=place, position=start, limit=1, wake=news.set)
    link.router.add(scout)
    try:
        link.router.seek(scout, end)
        while scout.found is None and scout.failure is None and scout.goal is not None:
            news.clear()
            await news.wait()
    finally:
        link.router.remove(scout)
    if scout.found is not None:
        return ResumeToken(job, place.partition, scout.found)
    if scout.failure is not None:
        raise scout.failure
    where = f"{start} to {end} of partition {place.partition} of {topic}"
    hint = "" if partition is not None else "; did it name another as its reply_partition?"
    raise StreamLost(f"no answer to job {job} begins in {where}{hint}")


class _Scout(Inbox):
    """Looks for a job's first record, and keeps none."""

    found: int | None = None
    _claimed: int | None = None
    _epoch: Epoch = BEFORE_ALL

    def offer(self, record: Fetched) -> None:
        """Take the partition's next record for this job."""
        if record.offset < self.position or self.found is not None or self.failure is not None:
            return
        self.position = record.offset + 1
        try:
            reply = decode_reply(record.value)
        except DecodeError as error:
            self.fail(StreamLost(f"a reply to job {self.job} cannot be read: {error}"))
            return
        if reply is None:
            first = decode_redirect(record.value, self.job)
            if first is not None and first < record.offset:
                self._find(first)
            return
        if isinstance(reply, ReleaseRecord) or reply.epoch < self._epoch:
            return
        if isinstance(reply, ClaimRecord):
            # An owner may begin with one, or go on with what an earlier one has written: where it
            # goes on tells.
            self._epoch = reply.epoch
            self._claimed = record.offset if self._claimed is None else self._claimed
        elif reply.index == 0:
            self._find(record.offset if self._claimed is None else self._claimed)
        else:
            self.fail(StreamLost(f"the answer to job {self.job} begins before {record.offset}"))

    def _find(self, offset: int) -> None:
        self.found = offset
        self._wake()
