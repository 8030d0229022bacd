"""Records that begin no job here: put aside, or led to the first one's answer.

Either way the record's offset is finished once that is acknowledged, and not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.observe.logs import get_logger
from aril.worker.queue.raw_batch import BATCH

if TYPE_CHECKING:
    from aril.schemas import JobError
    from aril.worker.job import Record
    from aril.worker.observe.metrics import Metrics
    from aril.worker.queue.assignment import PartitionState
    from aril.worker.queue.raw_batch import Part
    from aril.worker.replies.answers import Answers
    from aril.worker.replies.notices import Notice, Notices

log = get_logger(__name__)

REDIRECT_UNWRITABLE = "redirect_unwritable"
DUPLICATE_ID = "duplicate_id"


class JoblessRecords:
    """Sees to the offsets of such records."""

    def __init__(self, answers: Answers, notices: Notices, metrics: Metrics) -> None:
        self._answers = answers
        self._notices = notices
        self._metrics = metrics

    def put_aside(
        self, state: PartitionState, record: Record, reason: str, error: JobError
    ) -> None:
        """Put a record aside that nobody can be told of."""

        def done() -> None:
            if not state.revoked:
                state.finish_offset(record.offset)

        self._answers.put_aside(record, reason, error, done=done)

    def put_aside_unreadable(self, state: PartitionState, part: Part, error: JobError) -> None:
        """Put aside what is left of a record, or of a batch, that cannot be read."""
        record = part.record
        self._metrics.unreadable_batches.inc()
        log.error(
            "unreadable_batch",
            topic=record.source.topic,
            partition=record.source.partition,
            offset=record.offset,
            why=part.why,
        )
        self.put_aside(state, record, part.reason or BATCH, error)

    def redirect(self, state: PartitionState, record: Record, notice: Notice) -> None:
        """Tell who sent a job again where its answer begins; put aside if that can never be."""

        def done(error: JobError | None) -> None:
            if error is None:
                state.finish_offset(record.offset)
            else:
                self.put_aside(state, record, REDIRECT_UNWRITABLE, error)

        self._notices.tell(record, notice, done=done, dropped=lambda: state.revoked)

    def conflict(
        self, state: PartitionState, record: Record, notice: Notice, error: JobError
    ) -> None:
        """Tell who sent another job under a known id, if that can be; then put it aside."""

        def done(_: JobError | None) -> None:
            self.put_aside(state, record, DUPLICATE_ID, error)

        self._notices.tell(record, notice, done=done, dropped=lambda: state.revoked)
