"""What stays is not looked through for garbage, and cycles go all the same."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from aril import garbage
from aril.garbage import look_seldom, what_stays

if TYPE_CHECKING:
    from collections.abc import Iterator


class Knot:
    """A cycle."""

    def __init__(self) -> None:
        self.itself = self


def knot() -> weakref.ref[Knot]:
    """Make a cycle that nobody holds."""
    return weakref.ref(Knot())


@pytest.fixture
def by_hand() -> Iterator[None]:
    """Let nothing be collected but by whoever is tested."""
    before = gc.get_threshold()
    gc.set_threshold(0)
    yield
    gc.set_threshold(*before)


def test_what_is_there_is_not_looked_through() -> None:
    """Its objects are none of the collector's, until it is over."""
    before, stays = gc.get_threshold(), [Knot()]
    with what_stays():
        assert not any(each is stays for each in gc.get_objects())
        assert gc.get_threshold() == (garbage.YOUNG_OBJECTS, garbage.YOUNG_LOOKS, garbage.NEVER)
    assert any(each is stays for each in gc.get_objects())
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_nothing_that_was_garbage_stays() -> None:
    """What nobody held went before."""
    lost = knot()
    with what_stays():
        assert lost() is None


def test_many_young_objects_are_looked_through() -> None:
    """Cycles that come in numbers go as ever."""
    with what_stays():
        lost = knot()
        young: list[list[int]] = [[] for _ in range(garbage.YOUNG_OBJECTS + 1)]
        assert lost() is None
        assert young


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize(("idle", "looks_due"), [(True, 1), (False, 60)])
async def test_cycles_go_in_time(
    monkeypatch: pytest.MonkeyPatch, *, idle: bool, looks_due: int
) -> None:
    """Each minute where nobody would notice, each hour in any case."""
    minutes = asyncio.Semaphore(0)
    asked = asyncio.Event()

    async def sleep(_: float) -> None:
        asked.set()
        await minutes.acquire()

    monkeypatch.setattr("aril.garbage.asyncio.sleep", sleep)
    looking = asyncio.create_task(look_seldom(lambda: idle))
    for _ in range(2):
        lost = knot()
        for minute in range(looks_due):
            await asked.wait()
            assert lost() is not None, minute
            asked.clear()
            minutes.release()
            await asked.wait()
        assert lost() is None
    looking.cancel()
