"""A batch read by hand: all of a good one, and what is left of a broken one."""

from __future__ import annotations

import gzip
import struct
from typing import Any

import pytest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from aril.fetching.disarm import disarmed
from aril.fetching.layout import size_of
from aril.fetching.packed import MAX_UNPACKED_BYTES
from aril.worker.job import Partition
from aril.worker.queue.raw_batch import BATCH, MAX_RECORDS, RECORD, read_batch
from tests.support.raw_records import ODD_NAME, batch, record, sized

JOBS = Partition("jobs", 3)
GZIP = 1
APPEND_TIME = 8
CONTROL = 32
blobs = st.none() | st.binary(max_size=40)
headers = st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=3)


@given(st.lists(st.tuples(blobs, blobs, headers), min_size=1, max_size=5), st.booleans())
def test_a_good_batch_is_read_as_aiokafka_reads_it(
    records: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]], packed: bool
) -> None:
    """Keys, values, headers, times and offsets agree, packed or not."""
    made = [
        record(at, key, value, [(name.encode(), told) for name, told in more])
        for at, (key, value, more) in enumerate(records)
    ]
    body = gzip.compress(b"".join(map(sized, made))) if packed else None
    raw = batch(made, base=70, attributes=APPEND_TIME | (GZIP if packed else 0), packed=body)
    found = read_batch(JOBS, raw, 0)
    theirs: Any = MemoryRecords(raw).next_batch()
    assert found.next_offset == theirs.next_offset == 70 + len(records)
    assert [
        (each.record.offset, each.record.timestamp_ms, each.record.key, each.record.value)
        for each in found.parts
    ] == [(each.offset, each.timestamp, each.key, each.value) for each in theirs]
    assert [list(each.record.headers) for each in found.parts] == [more for _, _, more in records]
    assert {each.reason for each in found.parts} == {None}


def test_a_header_whose_name_is_no_text_is_no_reason_to_answer_nobody() -> None:
    """The name is read as Kafka's own client reads it; key and value are whole."""
    raw = batch([record(0, b"k", b"v", [(ODD_NAME, b"1")])], base=5)
    [part] = read_batch(JOBS, raw, 5).parts
    assert part.reason is None
    assert (part.record.key, part.record.value) == (b"k", b"v")
    assert part.record.headers == (("\ufffd\ufffd-key", b"1"),)


def test_a_broken_record_does_not_hide_its_neighbours() -> None:
    """What lies before and behind it in the batch is read; of itself the bytes are kept."""
    broken = record(1, b"k", b"v")[:-1] + b"\x7f"  # a wrong number of headers
    made = [record(0, b"a", b"1"), broken, record(2, b"c", b"3")]
    found = read_batch(JOBS, batch(made, base=10), 10)
    assert [(each.record.offset, each.reason) for each in found.parts] == [
        (10, None),
        (11, RECORD),
        (12, None),
    ]
    assert found.parts[1].record.value == broken
    assert found.next_offset == 13


def test_reading_begins_at_the_position() -> None:
    """Records of the batch that were handed out before do not come again."""
    made = [record(at, None, b"%d" % at) for at in range(4)]
    found = read_batch(JOBS, batch(made, base=10), 12)
    assert [each.record.offset for each in found.parts] == [12, 13]


def test_a_record_that_names_the_offset_of_another_is_put_aside() -> None:
    """Offsets rise within a batch: two records of one offset could not both be finished."""
    made = [record(0, None, b"a"), record(0, None, b"b"), record(2, None, b"c")]
    found = read_batch(JOBS, batch(made, base=10), 10)
    assert [(each.record.offset, each.reason) for each in found.parts] == [
        (10, None),
        (11, RECORD),
        (12, None),
    ]


@pytest.mark.parametrize(
    ("raw", "next_offset"),
    [
        (batch([record(0, None, b"x")] * 2, base=8, attributes=3, packed=b"no lz4"), 10),
        (batch([record(0, None, b"x")] * 2, base=8, attributes=7), 10),  # a codec nobody knows
        (batch([record(0, None, b"x")] * 2, base=8)[:-1], 9),  # torn: nothing in it is believed
        (batch([record(0, None, b"x")] * 2, base=8)[:-1] + b"!", 9),  # a wrong checksum
        (struct.pack(">qiiB", 12, 40, 0, 1) + b"?" * 35, 13),  # an older format
        (b"?", 9),
    ],
)
def test_what_cannot_be_told_apart_is_kept_whole(raw: bytes, next_offset: int) -> None:
    """One part with all the bytes, at the first offset that was not handed out."""
    found = read_batch(JOBS, raw, 8)
    [part] = found.parts
    assert (part.record.offset, part.record.value, part.reason) == (8, raw, BATCH)
    assert found.next_offset == next_offset


def test_behind_a_record_of_a_wrong_length_the_rest_is_kept_whole() -> None:
    """Nobody knows where the next one begins."""
    made = [record(0, None, b"a"), record(1, None, b"b"), record(2, None, b"c")]
    body = sized(made[0]) + b"\xfe\xff\x01" + b"rest"
    found = read_batch(JOBS, batch(made, base=10, packed=body), 10)
    assert [(each.record.offset, each.reason) for each in found.parts] == [(10, None), (11, BATCH)]
    assert found.parts[1].record.value == b"\xfe\xff\x01rest"
    assert found.next_offset == 13


def test_markers_of_transactions_are_nobodys() -> None:
    """A control batch is passed, and nothing of it is handed out."""
    raw = batch([record(0, b"\0\0\0\1", b"")], base=8, attributes=CONTROL)
    assert read_batch(JOBS, raw, 8) == ([], 9)


@given(st.binary(max_size=80), st.binary(max_size=60), st.integers(0, 7), st.integers(0, 2**40))
def test_nothing_raises_and_reading_always_goes_on(
    raw: bytes, body: bytes, attributes: int, position: int
) -> None:
    """Whatever the bytes are, offsets rise from the position to one behind it."""
    records = [record(0, None, b"x")] * 3
    for each in (raw, batch(records, base=position, attributes=attributes, packed=body)):
        found = read_batch(JOBS, each, position)
        offsets = [part.record.offset for part in found.parts]
        assert offsets == sorted(set(offsets))
        assert all(position <= offset < found.next_offset for offset in offsets)
        assert found.next_offset > position


def test_a_batch_says_how_long_it_is() -> None:
    """From its first twelve bytes on."""
    raw = batch([record(0, None, b"x")])
    assert size_of(raw[:12]) == len(raw)
    assert size_of(raw[:11]) is None


LARGE = gzip.compress(bytes(MAX_UNPACKED_BYTES + 1), 1)


def test_a_batch_that_would_unpack_to_too_much_is_kept_whole() -> None:
    """As it is on the wire, and it says why."""
    raw = batch([record(0, None, b"x")] * 2, base=8, attributes=GZIP, packed=LARGE)
    found = read_batch(JOBS, raw, 8)
    [part] = found.parts
    assert (part.record.offset, part.record.value, part.reason) == (8, raw, BATCH)
    assert str(MAX_UNPACKED_BYTES) in part.why
    assert found.next_offset == 10


def fetched(*partitions: bytes) -> list[bytes]:
    """Return what is left of what a fetch has brought of some partitions."""
    [(_, found)] = disarmed([("jobs", [(number, raw) for number, raw in enumerate(partitions)])])
    assert [each[0] for each in found] == [*range(len(partitions))]
    return [each[-1] for each in found]


def test_aiokafka_gives_up_on_it_before_it_unpacks() -> None:
    """Its checksum is made wrong, those of its neighbours are not; what is torn stays as it is."""
    good = batch([record(0, None, b"x")], attributes=GZIP, packed=gzip.compress(b"x"))
    large = batch([record(0, None, b"x")], base=1, attributes=GZIP, packed=LARGE)
    [left] = fetched(good + large + good + good[:-1])
    theirs: Any = MemoryRecords(left)
    assert [theirs.next_batch().validate_crc() for _ in range(3)] == [True, False, True]
    assert len(left) == 3 * len(good) + len(large) - 1
    assert fetched(good + good, good) == [good + good, good]


def test_many_batches_unpack_to_no_more_than_one_fetch_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first of each partition stays, so that all come in the end; none is lost."""
    monkeypatch.setattr("aril.fetching.disarm.MAX_FETCHED_BYTES", 2_500)
    one = batch([record(0, None, b"x")], attributes=GZIP, packed=gzip.compress(bytes(1_000)))
    plain = batch([record(0, None, b"x")])
    assert fetched(one * 5, one * 5, plain * 3) == [one * 2, one, plain * 3]
    assert fetched(plain + one * 5) == [plain + one * 2]


def rewritten(raw: bytes, last: int, count: int) -> bytes:
    """Let a batch say that its last offset and the number of its records are others."""
    rest = bytearray(raw[21:])
    rest[2:6] = last.to_bytes(4, signed=True)
    rest[36:40] = count.to_bytes(4, signed=True)
    return raw[:17] + calc_crc32c(rest).to_bytes(4) + bytes(rest)


@pytest.mark.parametrize(
    ("last", "count", "next_offset"),
    [(1, 3, 12), (2, -1, 13), (-(2**31), 3, 11), (2**31 - 1, MAX_RECORDS + 1, 2**31 + 10)],
)
def test_a_batch_that_gainsays_itself_is_kept_whole(
    last: int, count: int, next_offset: int
) -> None:
    """More records than offsets: the offsets behind it are other records', which would be lost."""
    raw = rewritten(batch([record(at, None, b"x") for at in range(3)], base=10), last, count)
    found = read_batch(JOBS, raw, 10)
    assert [(each.record.offset, each.reason) for each in found.parts] == [(10, BATCH)]
    assert found.next_offset == next_offset


def test_a_record_that_names_an_offset_too_high_leaves_the_others_theirs() -> None:
    """Those behind it need an offset each, and none of the next batch's."""
    made = [record(2, None, b"a"), record(1, None, b"b"), record(2, None, b"c")]
    found = read_batch(JOBS, batch(made, base=10), 10)
    assert [(each.record.offset, each.reason) for each in found.parts] == [
        (10, RECORD),
        (11, None),
        (12, None),
    ]
    assert found.next_offset == 13


def test_bytes_behind_the_last_record_are_kept() -> None:
    """Where the batch has an offset left for them; each of its offsets is spoken for."""
    raw = rewritten(batch([record(at, None, b"%d" % at) for at in range(3)], base=10), 2, 1)
    found = read_batch(JOBS, raw, 10)
    assert [(each.record.offset, each.reason) for each in found.parts] == [(10, None), (11, BATCH)]
    assert found.parts[1].record.value == sized(record(1, None, b"1")) + sized(
        record(2, None, b"2")
    )
