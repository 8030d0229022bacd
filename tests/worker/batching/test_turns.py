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


def begun_before(name: str, *, offset: int, tenant: str = "acme") -> Entry:
    """Return a job that another worker had begun."""
    entry = entry_of(name, offset=offset)
    entry.begun_before = True
    entry.tenant = tenant
    return entry


def test_what_was_begun_counts_as_what_waits() -> None:
    """Reading rests where it is too much, and its tenant pays for its turn as for any other."""
    backlog: Backlog[Entry] = Backlog(max_jobs_per_source=2, max_bytes=1 << 20)
    waiting = Turns(backlog)
    entries = [begun_before(f"j{number}", offset=number) for number in range(2)]
    for each in entries:
        waiting.add(each)
    assert backlog.full(entries[0].source)
    assert (len(backlog), backlog.bytes) == (2, sum(each.size for each in entries))
    assert backlog.before("acme", 0) == 2
    assert waiting.next(idle=False) is entries[0]
    assert entries[0].charged > 0
    waiting.discard(entries[1])
    assert (len(backlog), backlog.bytes) == (0, 0)
    assert waiting.next(idle=False) is None


def test_what_was_begun_goes_first_too_where_it_holds_up_a_partition() -> None:
    """Also while its tenant is passed over: others' jobs cannot be read until it is through."""
    waiting = turns()
    begun = begun_before("begun", offset=0, tenant="held")
    waiting.add(begun)
    assert waiting.next(idle=False, skip={"held"}) is None
    assert waiting.hurry(begun)
    assert waiting.next(idle=False, skip={"held"}) is begun
    assert waiting.next(idle=False) is None


def test_what_was_begun_and_lies_on_the_shelf_is_fetched_one_after_the_other() -> None:
    """It is passed over until it is whole; then it goes first. A held tenant's stays there."""
    waiting = turns()
    held, one, two = (
        begun_before(name, offset=number, tenant=name)
        for number, name in enumerate(("held", "one", "two"))
    )
    plain = entry_of("plain", offset=3)
    for each in (held, one, two, plain):
        each.shelved = each is not plain
        waiting.add(each)
    assert waiting.next(idle=False, skip={"held"}) is plain
    assert waiting.to_fetch() == [one]
    assert waiting.to_fetch() == []
    one.shelved = False
    assert waiting.next(idle=False, skip={"held"}) is one
    assert waiting.next(idle=False, skip={"held"}) is None
    assert waiting.to_fetch() == [two]
