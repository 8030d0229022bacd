"""Histories of jobs without a change of owner, and what comes after their end."""

from aril.schemas.make_vectors.build import Vector
from aril.schemas.make_vectors.streams import Visible, Writer, foreign, ignored, stream

_A1, _B1, _B2 = Writer("a", 1), Writer("b", 1), Writer("b", 2)


def plain_histories() -> list[Vector]:
    """Return logs without a claim that counts."""
    return [*_undisturbed(), *_same_epoch(), *_finished(), *_foreign()]


def _undisturbed() -> list[Vector]:
    first = Writer("a", 0)
    return [
        stream("no record", "Nothing yet.", Visible(None, [], "", None)),
        stream(
            "plain",
            "A fresh job: no claim, tokens from index 0, a terminal.",
            Visible(_A1, [11, 12], "Hello", "done"),
            _A1.tokens(0, [11], "He"),
            _A1.tokens(1, [12], "llo"),
            _A1.done(2),
        ),
        stream(
            "several tokens a record",
            "The index is that of the first; a terminal's index counts tokens, not records.",
            Visible(_A1, [1, 2, 3, 4, 5], "abcde", "done"),
            _A1.tokens(0, [1, 2, 3], "abc"),
            _A1.tokens(3, [4, 5], "de"),
            _A1.done(5),
        ),
        stream(
            "emoji over three records",
            "Ids appear at once, text when whole characters are there.",
            Visible(_A1, [240, 159, 141, 142], "🍎", "done"),
            _A1.tokens(0, [240], ""),
            _A1.tokens(1, [159, 141], ""),
            _A1.tokens(3, [142], "🍎"),
            _A1.done(4),
        ),
        stream(
            "text held back",
            "What might have become a stop string comes with the terminal.",
            Visible(_A1, [1, 2], "to EN", "done"),
            _A1.tokens(0, [1], "to"),
            _A1.tokens(1, [2], ""),
            _A1.done(2, " EN"),
        ),
        stream("empty answer", "No token at all.", Visible(_A1, [], "", "done"), _A1.done(0)),
        stream(
            "generation 0",
            "Brokers may count from 0; attempts count from 1.",
            Visible(first, [1], "a", "done"),
            first.tokens(0, [1], "a"),
            first.done(1),
        ),
        stream(
            "refused at once",
            "An error before any token.",
            Visible(_A1, [], "", "error"),
            _A1.error(0, "unknown_adapter"),
        ),
        stream(
            "cancelled",
            "What is visible stays visible.",
            Visible(_A1, [1, 2], "ab", "error"),
            _A1.tokens(0, [1, 2], "ab"),
            _A1.error(2),
        ),
    ]


def _same_epoch() -> list[Vector]:
    return [
        stream(
            "duplicate append",
            "Every record lands twice.",
            Visible(_A1, [1, 2], "ab!", "done"),
            _A1.tokens(0, [1], "a"),
            ignored(_A1.tokens(0, [1], "a")),
            _A1.tokens(1, [2], "b"),
            ignored(_A1.tokens(1, [2], "b")),
            _A1.done(2, "!"),
            ignored(_A1.done(2, "!")),
        ),
        stream(
            "index gap",
            "A record past the count is ignored, and counts when it is sent again in its place.",
            Visible(_A1, [1, 2, 3], "abc", "done"),
            _A1.tokens(0, [1], "a"),
            ignored(_A1.tokens(2, [3], "c")),
            _A1.tokens(1, [2], "b"),
            _A1.tokens(2, [3], "c"),
            _A1.done(3),
        ),
        stream(
            "overlap",
            "A record that begins before the count is ignored whole, new tokens or not.",
            Visible(_A1, [1, 2, 3], "abc", None),
            _A1.tokens(0, [1, 2], "ab"),
            ignored(_A1.tokens(1, [2, 3], "bc")),
            _A1.tokens(2, [3], "c"),
        ),
        stream(
            "terminal with a wrong index",
            "Neither before nor past the count does a terminal end the answer.",
            Visible(_A1, [1, 2], "ab", "done"),
            _A1.tokens(0, [1, 2], "ab"),
            ignored(_A1.done(1)),
            ignored(_A1.done(3)),
            ignored(_A1.error(0)),
            _A1.done(2),
        ),
        stream(
            "equal epoch, other writer",
            "The worker that began the epoch has it; the other is not heard at all.",
            Visible(_A1, [1, 2], "ab", "done"),
            _A1.tokens(0, [1], "a"),
            ignored(_B1.tokens(0, [91], "x")),
            ignored(_B1.tokens(1, [92], "y")),
            ignored(_B1.error(1)),
            _B1.claim(),
            ignored(_B1.tokens(1, [92], "y")),
            _A1.tokens(1, [2], "b"),
            _A1.done(2),
        ),
    ]


def _finished() -> list[Vector]:
    return [
        stream(
            "after the terminal",
            "Nothing counts, from whomever.",
            Visible(_A1, [1], "a", "done"),
            _A1.tokens(0, [1], "a"),
            _A1.done(1),
            ignored(_A1.tokens(1, [92], "x")),
            ignored(_A1.error(1)),
            _B2.claim(),
            ignored(_B2.tokens(0, [93], "y")),
            ignored(_B2.tokens(1, [93], "y")),
            ignored(_B2.done(1)),
        ),
        stream(
            "first terminal wins",
            "Of two terminals in their place the first counts.",
            Visible(_A1, [1], "a", "error"),
            _A1.tokens(0, [1], "a"),
            _A1.error(1),
            ignored(_A1.done(1)),
        ),
    ]


def _foreign() -> list[Vector]:
    return [
        stream(
            "records to skip",
            "Unknown kinds and broken records are as if they were not there.",
            Visible(_A1, [1, 2], "ab", None),
            _A1.tokens(0, [1], "a"),
            foreign(_B2.record("note", index=0)),
            foreign(_B2.record("tokens", index=0, ids=[], text="x")),
            foreign(_B2.record("claim") | {"epoch": [2, 0]}),
            _A1.tokens(1, [2], "b"),
        ),
    ]
