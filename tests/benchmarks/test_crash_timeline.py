"""The picture of a crash shows what a reader sees: nothing of a zombie, each claim, every token."""

from __future__ import annotations

import pytest

from aril.schemas import ClaimRecord, Epoch, TokensRecord
from benchmarks.crash_timeline import TOKENS, Followed, check

FIRST, SECOND = Epoch(1, 1), Epoch(2, 1)


def _tokens(epoch: Epoch, worker: str, index: int, count: int) -> TokensRecord:
    ids = tuple(range(count))
    return TokensRecord(job="j", epoch=epoch, worker=worker, index=index, ids=ids, text="")


def _followed() -> Followed:
    stream = Followed()
    stream.take(_tokens(FIRST, "a", 0, 3), 1.0)
    stream.take(ClaimRecord(job="j", epoch=SECOND, worker="b"), 2.0)
    stream.take(_tokens(FIRST, "a", 3, 1), 2.1)
    stream.take(_tokens(SECOND, "b", 3, TOKENS - 3), 3.0)
    return stream


def test_a_stream_is_followed_by_the_reader_rule() -> None:
    """Tokens have writer and place, a claim the visible count, a zombie's token does not appear."""
    events = _followed().events
    assert [(each.kind, each.index, each.worker) for each in events[:5]] == [
        ("token", 0, "a"),
        ("token", 1, "a"),
        ("token", 2, "a"),
        ("claim", 3, "b"),
        ("token", 3, "b"),
    ]
    assert [each.index for each in events if each.kind == "token"] == list(range(TOKENS))
    check([_followed()])


def test_a_lost_token_or_a_missing_take_over_is_an_error() -> None:
    """No picture is made of a run that did not show what it is for."""
    short = _followed()
    del short.events[-1]
    with pytest.raises(RuntimeError, match=f"has {TOKENS - 1} tokens"):
        check([short])
    calm = Followed()
    calm.take(_tokens(FIRST, "a", 0, TOKENS), 1.0)
    with pytest.raises(RuntimeError, match="nothing was taken over"):
        check([calm])
