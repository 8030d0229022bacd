"""Jobs that pass to a backbone with other weights: they go on, and not in silence."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aril.schemas import ClaimRecord, DoneEvent, Epoch, TokensRecord
from aril.schemas.limits import MAX_EARLIER_BASES
from aril.worker.engine.request import Output
from aril.worker.takeover.rule import History
from tests.support.harness import Harness
from tests.support.older_jobs import OLD, before, claim, job, tokens

if TYPE_CHECKING:
    from aril.schemas import ReplyRecord

OURS, THEIRS, LAST = "0f" * 32, "f0" * 32, "aa" * 32


async def taken_over(*earlier: ReplyRecord, ours: str | None = OURS) -> tuple[Harness, DoneEvent]:
    """Take a job over and end it; return the worker, and the terminal."""
    async with Harness(base_digest=ours) as harness:
        harness.state = harness.assign(generation=3, end_offset=OLD)
        before(harness, *earlier)
        harness.send(job())
        await harness.settle()
        harness.step(Output(harness.key_of("prompt of j1"), (9,), "i", finish="stop"))
        await harness.settle()
        terminal = harness.visible("acme", "j1").terminal
    assert isinstance(terminal, DoneEvent)
    return harness, terminal


def counted(harness: Harness) -> float | None:
    """Return how many such jobs the worker has counted."""
    return harness.metrics.registry.get_sample_value("aril_takeovers_other_base_total")


async def test_a_fresh_answer_tells_its_backbone_once() -> None:
    """In its first record and in its terminal, so that whoever takes it over knows."""
    async with Harness(base_digest=OURS) as harness:
        harness.send(job())
        for index, finish in enumerate((None, None, "stop")):
            await harness.settle()
            key = harness.key_of("prompt of j1")
            harness.step(Output(key, (index,), "x", finish=finish))  # type: ignore[arg-type] # a literal
        await harness.settle()
        records = harness.replies("acme", "j1")
    told = [each.base_digest for each in records if isinstance(each, TokensRecord)]
    assert told == [OURS, *[None] * (len(told) - 1)]
    assert len(told) > 1
    terminal = harness.visible("acme", "j1").terminal
    assert isinstance(terminal, DoneEvent)
    assert (terminal.base_digest, terminal.earlier_bases) == (OURS, ())


async def test_tokens_of_other_weights_are_told_in_the_terminal() -> None:
    """The answer goes on behind what is visible; tenant, log and metric hear of it."""
    harness, done = await taken_over(replace(tokens(0, 1, 2), base_digest=THEIRS))
    assert harness.visible("acme", "j1").token_ids == [1, 2, 9]
    assert (done.base_digest, done.earlier_bases) == (OURS, (THEIRS,))
    assert counted(harness) == 1
    claims = [each for each in harness.replies("acme", "j1") if isinstance(each, ClaimRecord)]
    assert [each.base_digest for each in claims] == [OURS]


@pytest.mark.parametrize(
    "earlier",
    [
        (replace(tokens(0, 1, 2), base_digest=OURS),),
        (tokens(0, 1, 2),),  # by a worker that does not tell
        (replace(claim((2, 1), "w0"), base_digest=THEIRS),),  # it brought nothing
    ],
    ids=["same", "untold", "no tokens"],
)
async def test_nothing_is_told_where_nothing_differs(earlier: tuple[ReplyRecord, ...]) -> None:
    """Only tokens that are visible, and known to be of other weights, count."""
    harness, done = await taken_over(*earlier)
    assert (done.base_digest, done.earlier_bases) == (OURS, ())
    assert counted(harness) == 0


async def test_a_worker_without_a_digest_compares_nothing() -> None:
    """A stand-in for a model has no weights."""
    harness, done = await taken_over(replace(tokens(0, 1, 2), base_digest=THEIRS), ours=None)
    assert (done.base_digest, done.earlier_bases, counted(harness)) == (None, (), 0)


async def test_all_backbones_of_an_answer_are_told() -> None:
    """In the order in which they brought tokens, each once."""
    first = replace(tokens(0, 1), base_digest=THEIRS)
    second = replace(claim((2, 2), "w1"), base_digest=LAST)
    more = tokens(1, 2, epoch=(2, 2), worker="w1")
    third = replace(claim((2, 3), "w2"), base_digest=THEIRS)
    again = tokens(2, 3, epoch=(2, 3), worker="w2")
    _, done = await taken_over(first, second, more, third, again)
    assert done.earlier_bases == (THEIRS, LAST)


def test_what_was_withdrawn_no_longer_counts() -> None:
    """An answer that begins anew is all of its new backbone."""
    history = History()
    history.feed(replace(tokens(0, 1), base_digest=THEIRS))
    history.feed(replace(tokens(0, 4, epoch=(3, 1), worker="w1"), base_digest=LAST))
    assert history.bases == [LAST]


def test_what_is_remembered_is_bounded() -> None:
    """Of a hundred backbones the last few are told."""
    history = History()
    history.feed(tokens(0, 1))
    for number in range(100):
        writer = Epoch(3, number + 1), f"w{number}"
        history.feed(
            ClaimRecord(job="j1", epoch=writer[0], worker=writer[1], base_digest=str(number))
        )
        history.feed(tokens(number + 1, 1, epoch=writer[0], worker=writer[1]))
    assert history.bases == [str(number) for number in range(100 - MAX_EARLIER_BASES, 100)]
