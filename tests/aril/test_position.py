"""Positions: from each of them a reader sees exactly the rest, whatever stands in the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.errors import BadToken
from aril.position import START, Position
from aril.schemas import Epoch, VisibleStream
from tests.support.reply_logs import Move, moves, written


@given(drawn=moves())
def test_the_rest_is_the_same_from_every_position(drawn: list[Move]) -> None:
    """Events and positions of a whole reading, and of one that begins behind any of its events."""
    records = written("a", drawn)
    whole, stream = [], VisibleStream()
    for offset, record in enumerate(records):
        if events := stream.feed(record):
            whole.append((events, Position.behind(stream, offset + 1)))
    for at, (_, position) in enumerate(whole):
        assert Position.parse(str(position)) == position
        if position.ended:
            assert at == len(whole) - 1
            break
        rest, resumed = [], position.stream()
        for offset, record in enumerate(records[position.offset :], position.offset):
            if events := resumed.feed(record):
                rest.append((events, Position.behind(resumed, offset + 1)))
        assert rest == whole[at + 1 :]


@given(
    st.lists(
        st.builds(
            Position,
            st.integers(1, 2**63 - 1),
            st.integers(0, 131_072),
            st.integers(0, 9),
            st.builds(Epoch, st.integers(1, 2**53 - 1), st.integers(1, 9)),
            st.just("0123456789ab"),
            st.booleans(),
        ),
        min_size=2,
        unique_by=lambda each: each.offset,
    )
)
def test_texts_sort_as_the_log(positions: list[Position]) -> None:
    """The order of texts is that of places, and the beginning's comes first."""
    texts = [str(each) for each in sorted(positions)]
    assert texts == sorted(texts)
    assert str(START) < texts[0]
    assert [Position.parse(text) for text in texts] == sorted(positions)
    assert all(len(text) < 256 and not set(text) & set(",&=?/") for text in texts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "0",
        "1".zfill(19),
        "1".zfill(20),
        f"{'0' * 19}_0_0_0_0_0123456789ab",
        f"{'5'.zfill(19)}_01_0_1_1_0123456789ab",
        f"{'5'.zfill(19)}_999999_0_1_1_0123456789ab",
        f"{'5'.zfill(19)}_1_0_1_1_0123456789AB",
        f"{'5'.zfill(19)}_1_0_1_1_0123456789ab_end_end",
        f"{chr(0x665).zfill(19)}_1_0_1_1_0123456789ab",
        f"{'5'.zfill(19)}_1_0_1_1_0123456789ab\n",
    ],
)
def test_what_no_reader_was_given_is_refused(text: str) -> None:
    """One place has one text; nothing else is one."""
    with pytest.raises(BadToken):
        Position.parse(text)
