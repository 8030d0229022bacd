"""Batches of records as they come off the wire: by hand, and through aiokafka as we wrap it."""

from __future__ import annotations

import gzip
import logging
import struct
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.codec import lz4_encode, snappy_encode, zstd_encode
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from aril.fetching.disarm import disarmed
from aril.fetching.layout import size_of
from aril.fetching.packed import MAX_UNPACKED_BYTES
from aril.fetching.tolerant import _Batches
from aril.worker.job import Partition
from aril.worker.queue.raw_batch import BATCH, RECORD, read_batch
from tests.fuzz.mutate import INTEGERS, bend, chance, pick
from tests.fuzz.target import ACCEPTED, Target, holds
from tests.support.raw_records import ODD_NAME, batch, record, sized, varint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

_SOURCE: Final = Partition("jobs", 3)
_WHERE: Final = TopicPartition(*_SOURCE)
_PACK: Final = {
    1: lambda data: gzip.compress(data, 1, mtime=0),
    2: snappy_encode,
    3: lz4_encode,
    4: zstd_encode,
}
_HEADER: Final = struct.Struct(">hiqqqhii")
_START: Final = struct.Struct(">qiib")
_BLOBS: Final = (None, b"", b"k", b"value" * 9, b"\0" * 300)
_HEADERS: Final = ((), ((b"trace", b"1"),), ((ODD_NAME, b"x"), (b"", b"")))


class Case(NamedTuple):
    """A batch, where reading begins, and what is in it if nobody bent it."""

    raw: bytes
    position: int
    good: tuple[tuple[int, bytes | None, bytes | None], ...] | None
    odd: bool  # a header's name is no text, which aiokafka does not take


def _make(rng: Random) -> Case:
    base = pick(rng, (0, 5, 10**9))
    if chance(rng, 0.0005):
        return Case(_bomb(pick(rng, (1, 2, 3, 4))), 0, None, odd=False)
    made, good, odd = [], [], False
    for at in range(pick(rng, (1, 1, 2, 5, 20))):
        key, value = pick(rng, _BLOBS), pick(rng, _BLOBS)
        headers = pick(rng, _HEADERS) if chance(rng, 0.2) else ()
        odd = odd or headers == _HEADERS[-1]
        made.append(record(at, key, value, headers))
        good.append((base + at, key, value))
    kind = rng.random()
    if kind < 0.25:
        at = int(rng.random() * len(made))
        made[at] = _bent_record(rng, made[at])
    body = b"".join(map(sized, made))
    if 0.2 < kind < 0.5:
        body = bend(rng, body)
    codec = pick(rng, (0, 0, 0, 1, 2, 3, 4))
    if codec:
        body = _PACK[codec](body)
        if 0.5 < kind < 0.6:
            body = bend(rng, body)
    elif chance(rng, 0.02):
        codec = pick(rng, (1, 2, 3, 4, 5, 6, 7))  # it is said to be packed, and is not
        kind = 0.0
    attributes = codec | pick(rng, (0, 0, 8, 0x10)) | (0x20 if chance(rng, 0.02) else 0)
    raw = _written(rng, base, attributes, len(made), body, bent=kind < 0.1)
    if 0.6 < kind < 0.8:
        raw = bend(rng, raw)
        if chance(rng, 0.6):
            raw = _checked(raw)
    position = base + pick(rng, (0, 0, 0, 1, 3))
    clean = kind >= 0.8 and not attributes & 0x20
    left = tuple(each for each in good if each[0] >= position)
    return Case(raw, position, left if clean else None, odd)


@cache
def _bomb(codec: int) -> bytes:
    """Return a small batch of one record that is larger than what is unpacked."""
    body = sized(record(0, None, bytes(MAX_UNPACKED_BYTES)))
    return batch([b""], attributes=codec, packed=_PACK[codec](body))


def _bent_record(rng: Random, data: bytes) -> bytes:
    if chance(rng, 0.3):
        return bend(rng, data)
    number = varint(max(-(2**63), min(2**63 - 1, pick(rng, INTEGERS))))
    at = int(rng.random() * min(12, len(data) + 1))
    return data[:at] + number + data[at + pick(rng, (0, 1, len(number))) :]


def _written(
    rng: Random, base: int, attributes: int, records: int, body: bytes, *, bent: bool
) -> bytes:
    last, count = records - 1, records
    if bent and chance(rng, 0.5):
        last = pick(rng, (-(2**31), -1, 0, records, 2**31 - 1))
    if bent and chance(rng, 0.5):
        count = pick(rng, (-(2**31), -1, 0, records - 1, records + 1, 2**31 - 1))
    rest = _HEADER.pack(attributes, last, 1_000, 2_000, -1, -1, -1, count) + body
    crc = calc_crc32c(rest).to_bytes(4, "big")
    return _START.pack(base, len(rest) + 9, -1, 2) + crc + rest


def _checked(raw: bytes) -> bytes:
    """Make length and checksum right again, so that what was bent is looked at."""
    if len(raw) < 61:
        return raw
    crc = calc_crc32c(raw[21:]).to_bytes(4, "big")
    return raw[:8] + struct.pack(">i", len(raw) - 12) + raw[12:17] + crc + raw[21:]


def _check(case: Case) -> str:
    raw, position, good, odd = case
    size_of(raw)
    found = read_batch(_SOURCE, raw, position)
    holds(found.next_offset > position, "reading goes on")
    at = position
    for part in found.parts:
        holds(at <= part.record.offset < found.next_offset, "offsets rise")
        at = part.record.offset + 1
        holds(part.reason in (None, RECORD, BATCH), "a reason is one of two")
        holds(part.reason is None or part.why, "it is said why")
        holds(part.reason is None or part.record.value is not None, "bytes are kept")
    whole = [each for each in found.parts if each.reason is None]
    read = tuple((each.record.offset, each.record.key, each.record.value) for each in whole)
    if good is not None:
        holds(read == good and len(whole) == len(found.parts), "a good batch is read whole")
    theirs = _through_aiokafka(disarmed([("t", [(raw,)])])[0][1][0][-1], position)
    plain = len(whole) == len(found.parts) and int.from_bytes(raw[:8], signed=True) >= position
    if plain and theirs is not None and [each[0] for each in theirs] == [each[0] for each in read]:
        holds(read == theirs, "both read the same")
    if good is not None and theirs is not None and not odd:
        holds(theirs == good, "aiokafka reads a good batch whole")
    reasons = {each.reason for each in found.parts} - {None}
    if not reasons:
        return ACCEPTED if found.parts else "nothing_in_it"
    return str(min(map(str, reasons)))


def _through_aiokafka(raw: bytes, position: int) -> tuple[Any, ...] | None:
    """Read as a consumer of replies does; None where aiokafka refuses the fetch itself."""
    try:
        records = MemoryRecords(raw)
        more = records.has_next()
    except Exception:  # noqa: BLE001 - in aiokafka's own fetching, where we are not asked
        return None
    if not more:
        return ()
    theirs = PartitionRecords(_WHERE, records, [], position, None, None, True, 0)  # noqa: FBT003
    skipped = []

    def failed(batches: Any) -> bool:
        skipped.append(batches.next_fetch_offset)
        holds(len(skipped) <= 2 + len(raw) // 14, "what cannot be read is passed once")
        return bool(batches.skip())

    batches = _Batches(_WHERE, theirs, failed)
    read = tuple((each.offset, each.key, each.value) for each in batches)
    offsets = [each[0] for each in read]
    holds(offsets == sorted(set(offsets)), "offsets rise")
    return read


@contextmanager
def _around() -> Iterator[None]:
    """Leave out a line of log for each batch that cannot be read."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


TARGET: Final = Target(
    name="batches",
    about="record batches: aril.worker.queue.raw_batch, aiokafka by aril.fetching.tolerant",
    share=700,
    make=_make,
    check=_check,
    size=lambda case: len(case.raw),
    around=_around,
    base=3 * MAX_UNPACKED_BYTES,
    factor=512,  # of parts beside bytes: two bytes are a broken record, and that is 400 in memory
)

__all__ = ["TARGET", "Case"]
