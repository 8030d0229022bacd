"""Who leaves an adapter slot for those that wait."""

import pytest

from tests.support.generation import request
from worker.engine.sequence import Sequence
from worker.engine.slot_turns import SlotTurns


def running(**tokens_left: int) -> list[Sequence]:
    """Build one running sequence an adapter with so many tokens to go."""
    return [
        Sequence(request(key, 1, max_tokens=left, adapter=name))
        for key, (name, left) in enumerate(tokens_left.items())
    ]


def pass_over(turns: SlotTurns, waiting: str, holders: list[Sequence], passes: int) -> None:
    """Play rounds in which younger jobs pass the waiting adapter."""
    for _ in range(passes):
        turns.begin()
        turns.refused(waiting, holders)
        turns.admitted("younger")


def test_the_holder_of_least_work_is_closed_after_the_allowed_passes() -> None:
    """Until then only the waiting adapter itself is closed, to keep the order of its jobs."""
    turns, holders = SlotTurns(2), running(long=9, short=3)
    pass_over(turns, "waiting", holders, 2)
    assert turns.closed("waiting")
    assert not turns.closed("short")
    turns.begin()
    assert not turns.closed("waiting")
    turns.refused("waiting", holders)
    assert turns.closed("short")
    assert not turns.closed("long")


def test_the_choice_is_kept_while_the_holder_drains() -> None:
    """Another holder that gets closer to its end meanwhile does not take the turn over."""
    turns = SlotTurns(0)
    turns.begin()
    turns.refused("waiting", running(a=5, b=7))
    turns.begin()
    turns.refused("waiting", running(a=5, b=1))
    assert turns.closed("a")
    assert not turns.closed("b")


def test_a_holder_that_is_gone_is_replaced() -> None:
    """If the drained slot went to an older job, another holder is closed in its place."""
    turns = SlotTurns(0)
    turns.begin()
    turns.refused("waiting", running(a=5, b=7))
    turns.begin()
    turns.refused("waiting", running(b=7, c=8))
    assert turns.closed("b")
    assert not turns.closed("a")


def test_each_wait_drains_a_holder_of_its_own() -> None:
    """Two waits close two holders; a third finds none left and waits for theirs."""
    turns, holders = SlotTurns(0), running(a=5, b=7)
    turns.begin()
    turns.refused("first", holders)
    assert not turns.closed("b")
    turns.refused("second", holders)
    turns.refused("third", holders)
    assert turns.closed("a")
    assert turns.closed("b")


def test_a_wait_ends_with_admission() -> None:
    """An adapter that got its slot starts from zero when it has to wait again."""
    turns, holders = SlotTurns(1), running(a=5)
    pass_over(turns, "waiting", holders, 1)
    turns.begin()
    turns.admitted("waiting")
    turns.begin()
    turns.refused("waiting", holders)
    assert not turns.closed("a")


def test_backbone_jobs_do_not_count_as_passing() -> None:
    """They take no slot, so nobody waits because of them."""
    turns, holders = SlotTurns(1), running(a=5)
    turns.begin()
    turns.refused("waiting", holders)
    turns.admitted(None)
    turns.begin()
    turns.refused("waiting", holders)
    assert not turns.closed("a")


def test_a_negative_bound_is_refused() -> None:
    """The number of passes cannot be negative."""
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        SlotTurns(-1)
