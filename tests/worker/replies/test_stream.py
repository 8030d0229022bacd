"""Reply streams: what is written next, and that nothing can follow a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.schemas import (
    Epoch,
    ErrorCode,
    ErrorRecord,
    JobError,
    TokenLogprobs,
    TokensRecord,
    VisibleStream,
    decode_reply,
)
from aril.schemas.limits import MAX_TOKENS_PER_RECORD
from aril.worker.replies.stream import ReplyStream


def new() -> ReplyStream:
    """Return a fresh stream."""
    return ReplyStream(job="j", epoch=Epoch(1, 1), worker="w")


def failure(index: int, text: str) -> ErrorRecord:
    """Make a terminal that shows what it was given."""
    error = JobError(ErrorCode.CANCELLED, text or "none")
    return ErrorRecord.of(error, job="j", epoch=Epoch(1, 1), worker="w", index=index)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 99), max_size=3), st.text(max_size=3), st.booleans()),
        max_size=30,
    )
)
def test_whatever_is_taken_when_a_reader_sees_all_of_it(
    steps: list[tuple[list[int], str, bool]],
) -> None:
    """Ids and texts come out once and in order, however they fall into records."""
    stream, reader = new(), VisibleStream()
    for ids, text, take in steps:
        stream.add(ids, text if ids else "")
        if take:
            for value in stream.take():
                record = decode_reply(value)
                assert record is not None
                reader.feed(record)
    stream.close(failure)
    for value in stream.take():
        record = decode_reply(value)
        assert record is not None
        reader.feed(record)
    assert reader.token_ids == [each for ids, _, _ in steps for each in ids]
    assert reader.text == "".join(text for ids, text, _ in steps if ids)
    assert reader.finished
    assert stream.ended
    assert stream.take() == []


def test_a_record_holds_whole_steps_up_to_its_limit() -> None:
    """A writer that lagged far behind splits; each record's text belongs to its own tokens."""
    stream = new()
    for number in range(MAX_TOKENS_PER_RECORD + 2):
        stream.add([number], f"{number} ", [TokenLogprobs(-1.0)])
    first, second = (decode_reply(value) for value in stream.take())
    assert isinstance(first, TokensRecord)
    assert isinstance(second, TokensRecord)
    assert (len(first.ids), second.index) == (MAX_TOKENS_PER_RECORD, MAX_TOKENS_PER_RECORD)
    assert second.text == f"{MAX_TOKENS_PER_RECORD} {MAX_TOKENS_PER_RECORD + 1} "
    assert second.logprobs is not None
    assert len(second.logprobs) == 2


def test_text_without_tokens_waits_for_the_terminal() -> None:
    """What became safe at the end alone is given to the terminal."""
    stream = new()
    stream.add([1], "a")
    stream.add([], "b")
    assert len(stream.take()) == 1
    stream.close(failure)
    [terminal] = [decode_reply(value) for value in stream.take()]
    assert isinstance(terminal, ErrorRecord)
    assert (terminal.index, terminal.message) == (1, "none")


def test_nothing_follows_a_terminal() -> None:
    """A token or a second terminal behind the first is a programmer's error."""
    stream = new()
    stream.close(failure)
    with pytest.raises(ValueError, match="a token after the terminal"):
        stream.add([1], "a")
    with pytest.raises(ValueError, match="a second terminal"):
        stream.close(failure)
