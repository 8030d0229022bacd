"""The done-beyond list: what is written is read back, and what cannot be read is empty."""

from __future__ import annotations

import base64
import itertools
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aril.worker.queue.done_list import (
    MAX_OFFSET,
    METADATA_BYTES,
    VERSION,
    decode,
    encode,
    open_below,
    text_size,
    varint_size,
)

positions = st.integers(0, 2**40) | st.integers(0, 100)
# Lengths on both sides of each varint's border, and of 16 and 32 bits.
lengths = st.integers(1, 3) | st.sampled_from([127, 128, 16_383, 16_384, 32_768, 65_536, 2**33])


@st.composite
def lists(draw: st.DrawFn, *, most: int = 40) -> tuple[int, list[range]]:
    """Draw a position and runs beyond it."""
    position = at = draw(positions)
    runs = []
    for gap, length in draw(st.lists(st.tuples(lengths, lengths), max_size=most)):
        runs.append(range(at + gap, at + gap + length))
        at += gap + length
    return position, runs


def text_of(position: int, body: bytes, version: int = VERSION) -> str:
    """Write a text with a right checksum, whatever its body."""
    checksum = zlib.crc32(body, zlib.crc32(position.to_bytes(8, "big")))
    return base64.b64encode(bytes([version]) + checksum.to_bytes(4, "big") + body).decode()


@given(lists())
@example((0, [range(1, 40_000), range(100_000, 165_536)]))
@example((MAX_OFFSET - 40_000, [range(MAX_OFFSET - 39_000, MAX_OFFSET)]))
def test_a_list_is_read_back_as_it_was_written(given_list: tuple[int, list[range]]) -> None:
    """Runs and gaps beyond 32,767 and up to the last offset come back; the size is as told."""
    position, runs = given_list
    text = encode(position, runs)
    assert decode(position, text) == tuple(runs)
    assert len(text) <= METADATA_BYTES
    edges = [position, *(edge for run in runs for edge in (run.start, run.stop))]
    body = sum(varint_size(b - a) for a, b in itertools.pairwise(edges))
    assert len(text) == text_size(body)


@given(lists(), st.integers(0, 200))
def test_what_does_not_fit_is_left_out_from_the_far_end(
    given_list: tuple[int, list[range]], limit: int
) -> None:
    """A shorter limit gives the longest prefix of the list that fits."""
    position, runs = given_list
    text = encode(position, runs, limit)
    kept = len(decode(position, text))
    assert len(text) <= limit
    assert decode(position, text) == tuple(runs[:kept])
    assert kept == len(runs) or len(encode(position, runs[: kept + 1])) > limit


def test_the_longest_text_holds_1533_runs() -> None:
    """4,096 characters bound the list, at either end of the way."""
    runs = [range(at, at + 1) for at in range(1, 10_000, 2)]
    text = encode(0, runs)
    assert len(text) == METADATA_BYTES
    assert decode(0, text) == tuple(runs[:1_533])
    assert decode(0, encode(0, runs, 2 * METADATA_BYTES)) == ()


@given(lists().filter(lambda each: bool(each[1])), st.data())
def test_a_damaged_text_is_the_empty_list(
    given_list: tuple[int, list[range]], data: st.DataObject
) -> None:
    """One changed character, or a cut: nothing is read, and nothing raises."""
    position, runs = given_list
    text = encode(position, runs)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda new: new != text[at]))
    damaged = text[:at] + other + text[at + 1 :]
    # The last character before padding has bits that mean nothing.
    same = damaged.isascii() and text.endswith("=") and at >= len(text) - 3
    assert decode(position, damaged) in ([(), tuple(runs)] if same else [()])
    assert decode(position, text[:at]) == ()


@given(st.text() | st.binary().map(lambda raw: base64.b64encode(raw).decode()))
@example("")
@example("A" * 4)
@example("note of another tool")
@example("é" * 8)
@example("A" * 1_000_000)
def test_any_other_text_is_the_empty_list(text: str) -> None:
    """Metadata that others wrote, or nobody, means that nothing is known."""
    assert decode(7, text) == ()


@given(st.binary(min_size=1, max_size=60))
def test_any_body_with_a_right_checksum_is_bounded(body: bytes) -> None:
    """Even a forged body gives ascending runs beyond the position, or nothing."""
    runs = decode(5, text_of(5, body))
    assert len(runs) <= len(body) // 2
    edges = [5, *(edge for run in runs for edge in (run.start, run.stop)), MAX_OFFSET + 1]
    assert edges == sorted(set(edges))


@pytest.mark.parametrize(
    ("body", "version"),
    [
        (b"\x01\x01", VERSION + 1),
        (b"\x01\x01", 0),
        (b"\x01", VERSION),
        (b"\x00\x01", VERSION),
        (b"\x01\x00", VERSION),
        (b"\x01\x81", VERSION),
        (b"\x01" + b"\xff" * 9 + b"\x00", VERSION),
        (b"\xff" * 8 + b"\x7f\x01", VERSION),
    ],
    ids=["newer", "older", "half", "touching", "nothing", "cut", "ten-bytes", "past-the-end"],
)
def test_a_body_that_we_would_not_write_is_the_empty_list(body: bytes, version: int) -> None:
    """Other versions, and counts out of bounds, are unreadable though the checksum is right."""
    assert decode(5, text_of(5, b"\x01\x01")) == (range(6, 7),)
    assert decode(5, text_of(5, body, version)) == ()


def test_a_text_belongs_to_its_position() -> None:
    """A list that was copied beside a translated offset is not believed."""
    text = encode(100, [range(105, 110)])
    assert decode(100, text) == (range(105, 110),)
    assert decode(90, text) == ()


@pytest.mark.parametrize("run", [range(3, 5), range(7, 9), range(9, 9)])
def test_a_run_out_of_place_is_a_programmers_error(run: range) -> None:
    """The position itself is open, and runs are not empty."""
    with pytest.raises(ValueError, match="not a run beyond 7"):
        encode(7, [run])


def test_offsets_outside_all_runs_are_counted() -> None:
    """What a log lost is what lay below its start and was in no run."""
    runs = (range(12, 15), range(18, 30))
    assert open_below(10, 10, runs) == 0
    assert open_below(5, 10, runs) == 0
    assert open_below(13, 10, runs) == 2
    assert open_below(40, 10, runs) == 30 - 15
