"""Who is next where a suspect waits for the engine, and what was claimed meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.batching.backlog import Backlog
from aril.worker.batching.turns import Turns
from tests.support.entries import entry_of

if TYPE_CHECKING:
    from aril.worker.job import Entry


def turns() -> Turns:
    """Return the turns of a worker where nothing waits."""
    backlog: Backlog[Entry] = Backlog(max_jobs_per_source=10, max_bytes=1 << 20)
    return Turns(backlog)


def test_a_claim_that_took_long_does_not_stand_before_the_suspect() -> None:
    """Its job comes in first and has to wait; else neither would ever start."""
    waiting = turns()
    suspect, late = entry_of("suspect", offset=1), entry_of("late", offset=2)
    suspect.alone = True
    waiting.add(suspect)
    assert waiting.suspect is suspect
    assert waiting.next(idle=True) is suspect  # to be claimed
    assert waiting.suspect is None
    waiting.add_first(late)
    assert waiting.next(idle=True) is None
    waiting.add_first(suspect)
    assert waiting.next(idle=True) is suspect
    assert waiting.next(idle=True) is None
    waiting.over(suspect)
    assert waiting.next(idle=True) is late


def test_while_a_suspect_waits_only_what_was_claimed_starts() -> None:
    """The engine empties for it; a job whose claim was under way does not lose its turn."""
    waiting = turns()
    suspect, claimed, fresh = (entry_of(name, offset=n) for n, name in enumerate("scf"))
    suspect.alone = True
    for each in (fresh, suspect):
        waiting.add(each)
    waiting.add_first(claimed)
    assert waiting.next(idle=False) is claimed
    assert waiting.next(idle=False) is None
    assert waiting.next(idle=True) is suspect


def test_what_another_worker_had_begun_goes_before_what_waits() -> None:
    """Somebody's stream stands still; it goes behind what had its turn, and as its tenant may."""
    waiting = turns()
    names = ("waiting", "begun", "later", "claimed")
    plain, begun, later, claimed = (entry_of(name, offset=n) for n, name in enumerate(names))
    begun.begun_before = later.begun_before = True
    begun.tenant = "held"
    for each in (plain, begun, later):
        waiting.add(each)
    waiting.add_first(claimed)
    assert waiting.next(idle=False) is claimed
    assert waiting.next(idle=False, skip={"held"}) is later
    assert waiting.next(idle=False, skip={"held"}) is plain
    assert waiting.next(idle=False, skip={"held"}) is None
    assert waiting.next(idle=False) is begun
    waiting.add(begun)
    waiting.discard(begun)
    assert waiting.next(idle=False) is None
