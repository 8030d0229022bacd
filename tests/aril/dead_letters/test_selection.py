"""Which letters are meant: filters, repetitions, the newest so many."""

from __future__ import annotations

from typing import Any

import pytest

from aril.dead_letters.letter import Place, note_headers
from aril.dead_letters.selection import Letters, Selection, moment, moment_ms, named
from aril.schemas import Job
from tests.support.letters import SENT_MS, letter, raw, record

PUT_ASIDE_MS = SENT_MS + 1_000


def letters(selection: Selection | None = None, **options: Any) -> Letters:
    """Return a collection of all, or of those that are meant."""
    return Letters(selection or Selection(), jobs_topic="jobs", **({"most": 10} | options))


@pytest.mark.parametrize(
    ("chosen", "takes"),
    [
        ({}, True),
        ({"reasons": {"missing_reply_topic", "malformed"}}, True),
        ({"reasons": {"malformed"}}, False),
        ({"tenants": {"acme"}, "reasons": {"missing_reply_topic"}}, True),
        ({"tenants": {"zeta"}}, False),
        ({"ids": {"j1"}}, True),
        ({"ids": {"j2"}}, False),
        ({"ids": {"j2"}, "places": {Place("jobs", 5, 17)}}, True),
        ({"places": {Place("jobs", 5, 18)}}, False),
        ({"since_ms": PUT_ASIDE_MS}, True),
        ({"since_ms": PUT_ASIDE_MS + 1}, False),
        ({"until_ms": PUT_ASIDE_MS}, False),
        ({"until_ms": PUT_ASIDE_MS + 1}, True),
    ],
)
def test_each_filter(chosen: dict[str, Any], takes: bool) -> None:
    """All that are given must fit; a letter is named by its place or its id."""
    assert Selection(**chosen).takes(letter()) is takes
    assert Selection(**chosen).everything is not bool(chosen)


def test_a_letter_that_was_appended_twice_is_one() -> None:
    """Unless its place was another record's before: topics are made anew."""
    found = letters()
    for after_ms in (1_000, 2_000):
        found.add(raw(after_ms=after_ms))
    found.add(raw(record(sent_ms=SENT_MS + 9)))
    later, first = found.chosen()
    assert (first.copies, first.letter.put_aside_ms) == (2, PUT_ASIDE_MS)
    assert (later.copies, later.letter.sent_ms) == (1, SENT_MS + 9)
    assert found.found == 2


@pytest.mark.parametrize(("newest", "kept"), [(True, [4, 3]), (False, [0, 1])])
def test_so_many_are_kept_from_either_end(newest: bool, kept: list[int]) -> None:
    """Whatever order they come in, and though all are counted."""
    found = letters(most=2, newest=newest)
    for at in (3, 0, 4, 1, 2):
        found.add(raw(record(offset=at, sent_ms=SENT_MS + at)))
    assert [each.letter.source.offset for each in found.chosen()] == kept
    assert found.found == 5


def test_letters_of_one_moment_keep_their_order() -> None:
    """The oldest first means as they came."""
    for newest, order in ((True, [2, 1, 0]), (False, [0, 1, 2])):
        found = letters(newest=newest)
        for at in range(3):
            found.add(raw(record(offset=at)))
        assert [each.letter.source.offset for each in found.chosen()] == order


def test_notes_go_with_their_letter_in_order() -> None:
    """Also where they come first, from another partition; one without its letter is nothing."""
    first, other = raw(), raw(record(offset=18))
    note = raw(record(value=None))
    found = letters(Selection(places=frozenset({Place("jobs", 5, 17)})))
    for at_ms, to in ((9, 94), (8, 93)):
        headers = tuple(note_headers(letter(), Place("jobs", 5, to)))
        found.add(note._replace(timestamp_ms=at_ms, headers=headers))
    found.add(first)
    found.add(other)
    (chosen,) = found.chosen()
    assert [each.to for each in chosen.notes] == ["jobs/5/93", "jobs/5/94"]


def test_what_is_no_letter_is_counted() -> None:
    """Nothing is passed over in silence."""
    found = letters()
    found.add(raw()._replace(headers=()))
    assert (found.strangers, found.found, found.chosen()) == (1, 0, [])


def test_bodies_are_kept_only_where_they_are_wanted() -> None:
    """A megabyte a letter is too much for a list."""
    for bodies in (False, True):
        found = letters(bodies=bodies)
        found.add(raw(record(Job(id="j1", tenant="acme", prompt="x"))))
        (chosen,) = found.chosen()
        assert (chosen.letter.value is not None) is bodies


def test_places_are_told_from_ids() -> None:
    """An id has no slash."""
    places, ids = named(["jobs/5/17", "j-1"])
    assert places == {Place("jobs", 5, 17)}
    assert ids == {"j-1"}
    with pytest.raises(ValueError, match=r"."):
        named(["jobs/5"])


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("90m", SENT_MS - 5_400_000),
        ("2d", SENT_MS - 2 * 86_400_000),
        ("2023-11-14T22:13:20", SENT_MS),
        ("2023-11-14T23:13:20+01:00", SENT_MS),
        ("2023-11-14", SENT_MS - 80_000_000),
    ],
)
def test_times(text: str, at_ms: int) -> None:
    """So long ago, or ISO 8601, UTC by default; what is shown can be given back."""
    assert moment_ms(text, SENT_MS + 0.5) == at_ms
    assert moment_ms(moment(at_ms), 0) == at_ms


@pytest.mark.parametrize("text", ["", "yesterday", "5", "5w", "-5m"])
def test_times_that_are_none(text: str) -> None:
    """They are refused."""
    with pytest.raises(ValueError, match=r"."):
        moment_ms(text, SENT_MS)
