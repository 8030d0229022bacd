"""Who leaves an adapter slot for those that wait."""

import pytest

from aril.worker.engine.sequence import TokenSequence
from aril.worker.engine.starvation import StarvationGuard
from tests.support.generation import request


def running(**tokens_left: int) -> list[TokenSequence]:
    """Build one running sequence an adapter with so many tokens to go."""
    return [
        TokenSequence(request(key, 1, max_tokens=left, adapter=name))
        for key, (name, left) in enumerate(tokens_left.items())
    ]


def pass_over(
    guard: StarvationGuard, waiting: str, holders: list[TokenSequence], passes: int
) -> None:
    """Play rounds in which younger jobs pass the waiting adapter."""
    for _ in range(passes):
        guard.begin()
        guard.refused((waiting,), holders)
        guard.admitted(("younger",))


def test_the_holder_of_least_work_is_closed_after_the_allowed_passes() -> None:
    """Until then only the waiting adapter itself is closed, to keep the order of its jobs."""
    guard, holders = StarvationGuard(2), running(long=9, short=3)
    pass_over(guard, "waiting", holders, 2)
    assert guard.closed(("waiting",))
    assert not guard.closed(("short",))
    guard.begin()
    assert not guard.closed(("waiting",))
    guard.refused(("waiting",), holders)
    assert guard.closed(("short",))
    assert not guard.closed(("long",))


def test_the_choice_is_kept_while_the_holder_drains() -> None:
    """Another holder that gets closer to its end meanwhile does not take the turn over."""
    guard = StarvationGuard(0)
    guard.begin()
    guard.refused(("waiting",), running(a=5, b=7))
    guard.begin()
    guard.refused(("waiting",), running(a=5, b=1))
    assert guard.closed(("a",))
    assert not guard.closed(("b",))


def test_a_holder_that_is_gone_is_replaced() -> None:
    """If the drained slot went to an older job, another holder is closed in its place."""
    guard = StarvationGuard(0)
    guard.begin()
    guard.refused(("waiting",), running(a=5, b=7))
    guard.begin()
    guard.refused(("waiting",), running(b=7, c=8))
    assert guard.closed(("b",))
    assert not guard.closed(("a",))


def test_each_wait_drains_a_holder_of_its_own() -> None:
    """Two waits close two holders; a third finds none left and waits for theirs."""
    guard, holders = StarvationGuard(0), running(a=5, b=7)
    guard.begin()
    guard.refused(("first",), holders)
    assert not guard.closed(("b",))
    guard.refused(("second",), holders)
    guard.refused(("third",), holders)
    assert guard.closed(("a",))
    assert guard.closed(("b",))


def test_a_wait_ends_with_admission() -> None:
    """An adapter that got its slot starts from zero when it has to wait again."""
    guard, holders = StarvationGuard(1), running(a=5)
    pass_over(guard, "waiting", holders, 1)
    guard.begin()
    guard.admitted(("waiting",))
    guard.begin()
    guard.refused(("waiting",), holders)
    assert not guard.closed(("a",))


def test_backbone_jobs_do_not_count_as_passing() -> None:
    """They take no slot, so nobody waits because of them."""
    guard, holders = StarvationGuard(1), running(a=5)
    guard.begin()
    guard.refused(("waiting",), holders)
    guard.admitted(())
    guard.begin()
    guard.refused(("waiting",), holders)
    assert not guard.closed(("a",))


def test_a_wait_for_several_slots_closes_all() -> None:
    """One holder that drains would leave its slot to a job that needs no other."""
    guard, holders = StarvationGuard(1), running(a=5, b=7)
    guard.begin()
    guard.refused(("c", "d"), holders)
    guard.admitted(("a",))
    assert guard.closed(("c", "d"))
    assert not guard.closed(("c",))
    guard.begin()
    guard.refused(("c", "d"), holders)
    assert guard.closed(("a",))
    assert guard.closed(("e",))


def test_a_mixture_waits_behind_what_waits_for_a_part_of_it() -> None:
    """The older job of that adapter goes first."""
    guard = StarvationGuard(1)
    guard.begin()
    guard.refused(("a",), running(b=7))
    assert guard.closed(("c", "a"))
    assert not guard.closed(("c", "b"))


def test_a_negative_bound_is_refused() -> None:
    """The number of passes cannot be negative."""
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        StarvationGuard(-1)
