"""Records out of the bytes of a fetch, and how far they go. Pure.

What cannot be unpacked ends them; what stands before it is returned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aiokafka import errors
from aiokafka.record import MemoryRecords

from aril.fetching.layout import size_of
from aril.fetching.place import Fetched

if TYPE_CHECKING:
    from aril.fetching.place import Place


class Read(NamedTuple):
    """What was read, up to which offset, why not further, and the offset behind that."""

    records: list[Fetched]
    next_offset: int
    error: Exception | None = None
    behind: int = 0


def read_records(place: Place, raw: bytes, offset: int) -> Read:
    """Return the records from `offset` on that whole batches of `raw` hold."""
    records: list[Fetched] = []
    position, at = offset, 0
    while (size := size_of(raw[at : at + 12])) is not None and at + size <= len(raw):
        behind = position + 1
        try:
            batch = MemoryRecords(raw[at : at + size]).next_batch()
            behind = max(behind, batch.next_offset)
            if not batch.validate_crc():
                return Read(records, position, errors.CorruptRecordException(), behind)
            for record in () if batch.is_control_batch else batch:
                if record.offset >= position:
                    records.append(Fetched(place, record.offset, record.key, record.value))
                    position = record.offset + 1
        except Exception as error:  # noqa: BLE001 - codecs and readers raise what they like
            return Read(records, position, error, behind)
        position = max(position, batch.next_offset)
        at += size
    if at == 0 and raw:  # brokers send the first one whole: it is torn
        return Read([], offset, errors.CorruptRecordException(), offset + 1)
    return Read(records, position)
