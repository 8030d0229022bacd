"""Dead letters as they stand in their topic, made by the worker's own code."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from aril.dead_letters.letter import Letter, Place, Raw, read
from aril.schemas import Job, encode_request
from aril.worker.job import Partition, Record
from aril.worker.replies.dead_letters import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Sequence

SENT_MS = 1_700_000_000_000
JOB = Job(id="j1", tenant="acme", prompt="a secret prompt")
numbers = itertools.count()


def record(
    value: bytes | Job | None = JOB,
    *,
    offset: int = 17,
    topic: str = "jobs",
    key: bytes | None = b"j1",
    headers: Sequence[tuple[str, bytes | None]] = (),
    sent_ms: int = SENT_MS,
) -> Record:
    """Return a record of a topic of jobs."""
    data = encode_request(value) if isinstance(value, Job) else value
    return Record(Partition(topic, 5), offset, sent_ms, key, data, headers)


def raw(
    of: Record | None = None,
    reason: str = "missing_reply_topic",
    *,
    cut: bool = False,
    after_ms: int = 1_000,
    message: str = "why",
) -> Raw:
    """Return a letter as Kafka gives it, each with an offset of its own."""
    of = of or record()
    made = (DeadLetter.cut if cut else DeadLetter.of)(of, reason, "invalid_job", message)
    place = Place("jobs.dlq", 0, next(numbers))
    return Raw(place, of.timestamp_ms + after_ms, made.key, made.value, tuple(made.headers))


def letter(
    of: Record | None = None,
    reason: str = "missing_reply_topic",
    *,
    cut: bool = False,
    jobs_topic: str = "jobs",
    message: str = "why",
) -> Letter:
    """Return a letter as it is read."""
    found = read(raw(of, reason, cut=cut, message=message), jobs_topic=jobs_topic)
    assert isinstance(found, Letter)
    return found
