"""What members and leader tell each other: it comes back as it was, or not at all."""

from __future__ import annotations

import zlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.job import Partition
from aril.worker.placement.load_report import (
    MAX_ADAPTERS,
    MAX_LOAD,
    MAX_NUMBER,
    MAX_PARTITION_ADAPTERS,
    MAX_ROWS,
    REPORT_BYTES,
    VERSION,
    Notice,
    Report,
    decode_notice,
    decode_report,
    encode_notice,
    encode_report,
    mark_of,
)
from aril.worker.placement.plan import PartitionLoad

marks = st.integers(0, 2**32 - 1)
eighths = st.integers(0, MAX_LOAD * 8).map(lambda each: each / 8)  # what bytes hold exactly
partitions = st.builds(
    Partition, st.sampled_from(["jobs", "jobs.acme", "jobs.zäh"]), st.integers(0, 100_000)
)
reports = st.builds(
    Report,
    sequence=st.integers(0, MAX_NUMBER),
    rows=st.integers(1, MAX_ROWS),
    generation=st.integers(-1, MAX_NUMBER - 1),
    draining=st.booleans(),
    asked=st.booleans(),
    adapters=st.lists(marks, max_size=MAX_ADAPTERS).map(tuple),
    held=st.dictionaries(
        partitions,
        st.builds(
            PartitionLoad,
            st.none() | eighths,
            st.lists(marks, max_size=MAX_PARTITION_ADAPTERS).map(tuple),
        ),
    ),
)
notices = st.builds(
    Notice,
    open=st.integers(0, MAX_NUMBER),
    standby=st.integers(0, MAX_NUMBER),
    load=eighths,
    rows=st.integers(0, MAX_NUMBER),
    asked=st.booleans(),
    closes=st.booleans(),
    loads=st.lists(eighths).map(tuple),
)


@given(reports)
def test_a_report_comes_back_as_it_was(report: Report) -> None:
    """Every field, to an eighth of a row."""
    assert decode_report(encode_report(report)) == report


@given(notices)
def test_a_notice_comes_back_as_it_was(notice: Notice) -> None:
    """Every field, to an eighth of a row."""
    assert decode_notice(encode_notice(notice)) == notice


@given(st.floats(0, 2 * MAX_LOAD))
def test_loads_are_told_to_an_eighth_and_have_a_limit(rows: float) -> None:
    """A load that is no number of eighths is rounded; an absurd one is the largest."""
    report = Report(sequence=1, rows=16, held={Partition("jobs", 0): PartitionLoad(rows)})
    told = decode_report(encode_report(report))
    assert told is not None
    back = told.held[Partition("jobs", 0)].rows
    assert back is not None
    assert abs(back - min(rows, MAX_LOAD)) <= 1 / 16


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_nothing_known(data: bytes) -> None:
    """They are no report and no notice, and raise nothing."""
    assert decode_report(data) is None
    assert decode_notice(data) is None


@given(reports, st.data())
def test_a_cut_or_damaged_report_is_bounded_or_nothing_known(
    report: Report, data: st.DataObject
) -> None:
    """Any prefix and anything behind the end is none; of a flipped bit whatever is legal."""
    good = encode_report(report)
    assert decode_report(good[: data.draw(st.integers(0, len(good) - 1))]) is None
    assert decode_report(good + b"\0") is None
    damaged = bytearray(good)
    at = data.draw(st.integers(0, 8 * len(good) - 1))
    damaged[at // 8] ^= 1 << at % 8
    told = decode_report(bytes(damaged))
    if told is not None:
        assert 1 <= told.rows <= MAX_ROWS
        assert len(told.adapters) <= MAX_ADAPTERS
        assert all(0 <= (each.rows or 0) <= MAX_LOAD for each in told.held.values())
        assert all(len(each.adapters) <= MAX_PARTITION_ADAPTERS for each in told.held.values())


@pytest.mark.parametrize(
    "change",
    [
        {"v": VERSION + 1},
        {"rows": 0},
        {"rows": MAX_ROWS + 1},
        {"rows": 16.0},
        {"generation": -2},
        {"adapters": [1] * (MAX_ADAPTERS + 1)},
        {"held": [["jobs", [0], [8, 8], []]]},
        {"held": [["jobs", [0], [8], [[1], [2]]]]},
        {"held": [["", [0], [8], []]]},
        {"held": [["jobs", [-1], [8], []]]},
        {"held": [["jobs", [0], [8 * MAX_LOAD + 1], []]]},
        {"held": [["jobs", [0], ["8"], []]]},
    ],
)
def test_what_breaks_a_bound_is_nothing_known(change: dict[str, object]) -> None:
    """Another version, too much, another type, columns that disagree."""
    fields = msgpack.unpackb(encode_report(Report(sequence=1, rows=16)))
    assert decode_report(msgpack.packb(fields)) is not None
    assert decode_report(msgpack.packb(fields | change)) is None


@pytest.mark.parametrize("topics", [1, 300])
def test_a_report_has_a_limit(topics: int) -> None:
    """Adapters are left out first, then partitions; what is left is right."""
    held = {
        Partition(f"jobs.tenant-{topic:03}-with-a-long-name", number): PartitionLoad(
            3.0, (1, 2, 3, 4)
        )
        for topic in range(topics)
        for number in range(6_000 // topics)
    }
    report = Report(sequence=7, rows=16, adapters=tuple(range(64)), held=held)
    data = encode_report(report)
    assert len(data) <= REPORT_BYTES
    told = decode_report(data)
    assert told is not None
    assert told.adapters == report.adapters
    assert len(told.held) > 3_000
    assert all(held[source].rows == load.rows for source, load in told.held.items())


def test_a_notice_has_a_limit() -> None:
    """Loads that do not fit are left out, all of them: their order is that of the partitions."""
    told = decode_notice(encode_notice(Notice(2, 1, 30.0, 32, loads=(100.0,) * 20_000)))
    assert told == Notice(2, 1, 30.0, 32)


def test_a_load_of_any_size_can_be_told() -> None:
    """A sum over all partitions is cut where it is absurd, and no larger one is believed."""
    told = decode_notice(encode_notice(Notice(2, 1, 1e300, 32)))
    assert told is not None
    assert told == decode_notice(encode_notice(told))
    fields = msgpack.unpackb(encode_notice(Notice(2, 1, 1e300, 32)))
    assert decode_notice(msgpack.packb(fields | {"load": 2**64 - 1})) is None


def test_a_report_of_a_usual_worker_is_small() -> None:
    """All reports of a group stand in one record of the broker's, 1 MiB at most."""
    held = {Partition("jobs", number): PartitionLoad(2.0, (1, 2, 3, 4)) for number in range(16)}
    data = encode_report(Report(sequence=99, rows=16, adapters=tuple(range(8)), held=held))
    assert len(data) < 400


def test_marks_are_of_the_digest() -> None:
    """All workers call an adapter by the same mark."""
    assert mark_of("sha256:abc") == zlib.crc32(b"sha256:abc")
