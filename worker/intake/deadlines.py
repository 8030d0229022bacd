"""Until when a job may be answered. Pure: times are passed in, milliseconds since the epoch."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from aril.schemas import ErrorCode, JobError

if TYPE_CHECKING:
    from aril.schemas import Job
    from aril.worker.job import Entry, Record

# Entries of jobs that ended stay in the heap until it is this much larger than needed.
STALE_DEADLINES = 1_024

# A turn that is expected so much later than the time that is left is taken to come too late.
SURE_FACTOR = 1.5
SURE_MS = 1_000.0


class Deadlines:
    """The unfinished jobs of a worker, by when their time is up."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Entry]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, entry: Entry) -> None:
        """Look after a job."""
        heapq.heappush(self._heap, (entry.deadline_ms, entry.key, entry))

    def due(self, now_ms: float) -> list[Entry]:
        """Remove and return the jobs whose time is up.

        One that is ending is left out. Should its end not get into the log, it waits for its turn
        once more, and its time is looked at then.
        """
        found = []
        while self._heap and self._heap[0][0] <= now_ms:
            _, _, entry = heapq.heappop(self._heap)
            if not entry.ending:
                found.append(entry)
        return found

    def prune(self, unfinished: int) -> None:
        """Let go of what is settled or was dropped, once there is too much of it.

        Not of what is ending only: an append that breaks may bring it back to the start.
        """
        if len(self._heap) > 2 * unfinished + STALE_DEADLINES:
            self._heap = [each for each in self._heap if not each[2].over]
            heapq.heapify(self._heap)


def deadline_of(record: Record, job: Job | None, max_age_ms: float) -> float:
    """Return when it is too late to answer: what the job asks for, within the service's limit."""
    if job is not None and job.deadline_ms is not None:
        max_age_ms = min(max_age_ms, job.deadline_ms)
    return record.timestamp_ms + max_age_ms


def is_hopeless(entry: Entry, wait_seconds: float, now_ms: float) -> bool:
    """Tell whether a job whose turn is expected so late will not be answered in time.

    What is expected is a guess: it has to be far off.
    """
    return wait_seconds * 1_000 > SURE_FACTOR * (entry.deadline_ms - now_ms) + SURE_MS


def would_be_late(entry: Entry, wait_seconds: float, now_ms: float) -> JobError:
    """Make the error for such a job."""
    limit = entry.deadline_ms - entry.record.timestamp_ms
    return JobError(
        ErrorCode.DEADLINE_EXCEEDED,
        f"its turn would not come within {limit:.0f} ms: others of this tenant are before it",
        limit=round(limit),
        given=round(now_ms + wait_seconds * 1_000 - entry.record.timestamp_ms),
    )


def too_late(entry: Entry, now_ms: float) -> JobError:
    """Make the error for a job whose time is up."""
    limit = entry.deadline_ms - entry.record.timestamp_ms
    return JobError(
        ErrorCode.DEADLINE_EXCEEDED,
        f"not answered within {limit:.0f} ms",
        limit=round(limit),
        given=round(now_ms - entry.record.timestamp_ms),
    )
