"""Histories of jobs that change owner: claims, zombies, releases and resets."""

from aril.schemas.make_vectors.build import Vector
from aril.schemas.make_vectors.streams import Visible, Writer, ignored, resetting, stream

_A1, _A1_RETRY = Writer("a", 1), Writer("a", 1, attempt=2)
_B2, _B2_RETRY = Writer("b", 2), Writer("b", 2, attempt=2)
_C3 = Writer("c", 3)


def take_over_histories() -> list[Vector]:
    """Return logs in which one epoch follows another."""
    return [*_take_overs(), *_resets()]


def _take_overs() -> list[Vector]:
    return [
        stream(
            "claim keeps the prefix",
            "The new owner goes on in mid-answer; the zombie is not heard any more.",
            Visible(_B2, [1, 2, 3], "abc", "done"),
            _A1.tokens(0, [1, 2], "ab"),
            _B2.claim(),
            ignored(_A1.tokens(2, [93], "x")),
            _B2.tokens(2, [3], "c"),
            ignored(_A1.done(2)),
            ignored(_A1.done(3)),
            _B2.done(3),
        ),
        stream(
            "late landing before the claim",
            "The log's order decides: what landed before the claim is in.",
            Visible(_B2, [1, 2, 3], "abc", None),
            _A1.tokens(0, [1], "a"),
            _A1.tokens(1, [2], "b"),
            _B2.claim(),
            _B2.tokens(2, [3], "c"),
        ),
        stream(
            "claim of a job without tokens",
            "A claim alone begins an epoch.",
            Visible(_B2, [1], "a", None),
            _B2.claim(),
            ignored(_A1.tokens(0, [91], "x")),
            _B2.tokens(0, [1], "a"),
        ),
        stream(
            "emoji split over a crash",
            "The text of a character comes with its last token, whoever writes it.",
            Visible(_B2, [240, 241, 242], "hi \U0001f600", "done"),
            _A1.tokens(0, [240, 241], "hi "),
            _B2.claim(),
            _B2.tokens(2, [242], "\U0001f600"),
            _B2.done(3),
        ),
        stream(
            "stop string split over a crash",
            "The new owner holds back what the old one held back; the stop string is never seen.",
            Visible(_B2, [1, 2, 3], "yes", "done"),
            _A1.tokens(0, [1, 2], "yes"),
            _B2.claim(),
            _B2.tokens(2, [3], ""),
            _B2.done(3),
        ),
        stream(
            "crash before the terminal",
            "All tokens are there: the new owner writes the terminal only.",
            Visible(_B2, [1, 2], "ab", "done"),
            _A1.tokens(0, [1, 2], "ab"),
            _B2.claim(),
            ignored(_A1.done(2)),
            _B2.done(2),
        ),
        stream(
            "crash inside of a record",
            "A record of several tokens lands whole or not at all; the zombie's comes too late.",
            Visible(_B2, [1, 2, 3, 4], "abcd", "done"),
            _A1.tokens(0, [1, 2], "ab"),
            _B2.claim(),
            ignored(_A1.tokens(2, [3, 4, 5], "cde")),
            _B2.tokens(2, [3], "c"),
            _B2.tokens(3, [4], "d"),
            _B2.done(4),
        ),
        stream(
            "claim before the first token of another",
            "A zombie that was slow to begin is never heard.",
            Visible(_B2, [1], "a", "done"),
            _B2.claim(),
            _B2.tokens(0, [1], "a"),
            ignored(_A1.tokens(0, [91], "x")),
            ignored(_A1.done(1)),
            _B2.done(1),
        ),
        stream(
            "handed on by three",
            "Release and claim, twice: the answer is of one piece.",
            Visible(_C3, [1, 2, 3], "abc", "done"),
            _A1.tokens(0, [1], "a"),
            _A1.release(),
            _B2.claim(),
            _B2.tokens(1, [2], "b"),
            _B2.release(),
            _C3.claim(),
            _C3.tokens(2, [3], "c"),
            _C3.done(3),
        ),
        stream(
            "retry",
            "An append failed, the writer claims with its next attempt, what was lost lands late.",
            Visible(_A1_RETRY, [1, 2], "ab", "done"),
            _A1.tokens(0, [1], "a"),
            _A1_RETRY.claim(),
            ignored(_A1.tokens(1, [2], "b")),
            _A1_RETRY.tokens(1, [2], "b"),
            _A1_RETRY.done(2),
        ),
        stream(
            "two claims",
            "The higher one has it, whichever comes first.",
            Visible(_C3, [1, 2], "ab", None),
            _A1.tokens(0, [1], "a"),
            _C3.claim(),
            _B2.claim(),
            ignored(_B2.tokens(1, [92], "x")),
            _C3.tokens(1, [2], "b"),
        ),
        stream(
            "generation before attempt",
            "(2, 1) is higher than (1, 2).",
            Visible(_B2, [1, 2], "ab", None),
            _A1_RETRY.tokens(0, [1], "a"),
            _B2.claim(),
            ignored(_A1_RETRY.tokens(1, [92], "x")),
            _B2.tokens(1, [2], "b"),
        ),
        stream(
            "higher epoch without a claim",
            "A record past index 0 begins no epoch, so the current writer is still heard.",
            Visible(_A1, [1, 2], "ab", "done"),
            _A1.tokens(0, [1], "a"),
            ignored(_B2.tokens(1, [92], "x")),
            ignored(_B2.done(1)),
            _A1.tokens(1, [2], "b"),
            _A1.done(2),
        ),
        stream(
            "release",
            "Changes nothing: the claim that follows keeps the prefix.",
            Visible(_B2, [1, 2], "ab", None),
            _A1.tokens(0, [1], "a"),
            _A1.release(),
            _B2.claim(),
            _B2.tokens(1, [2], "b"),
        ),
        stream(
            "release of a higher epoch",
            "Begins no epoch.",
            Visible(_A1, [1, 2], "ab", None),
            _A1.tokens(0, [1], "a"),
            _B2.release(),
            _A1.tokens(1, [2], "b"),
        ),
        stream(
            "release and go on",
            "Even the writer's own farewell does not silence it.",
            Visible(_A1, [1, 2], "ab", None),
            _A1.tokens(0, [1], "a"),
            _A1.release(),
            _A1.tokens(1, [2], "b"),
        ),
    ]


def _resets() -> list[Vector]:
    return [
        stream(
            "reset",
            "A zombie had started a job that was fresh to its owner: index 0 withdraws its tokens.",
            Visible(_B2, [1, 2], "ab", "done", 1),
            _A1.tokens(0, [91, 92], "xy"),
            resetting(_B2.tokens(0, [1], "a"), 2),
            ignored(_A1.tokens(2, [93], "z")),
            ignored(_A1.tokens(1, [93], "z")),
            _B2.tokens(1, [2], "b"),
            _B2.done(2),
        ),
        stream(
            "reset twice",
            "Each higher epoch at index 0 begins again.",
            Visible(_C3, [1], "a", None, 2),
            _A1.tokens(0, [91], "x"),
            resetting(_B2.tokens(0, [92, 93], "yz"), 1),
            resetting(_C3.tokens(0, [1], "a"), 2),
        ),
        stream(
            "index 0 while nothing is visible",
            "Nothing to withdraw, so no reset.",
            Visible(_C3, [1], "a", None),
            _B2.claim(),
            _C3.tokens(0, [1], "a"),
        ),
        stream(
            "index 0 in an epoch that has begun",
            "After its own claim a record at index 0 is an old index like any other.",
            Visible(_B2_RETRY, [2], "b", None, 1),
            _A1.tokens(0, [1], "a"),
            _B2.claim(),
            ignored(_B2.tokens(0, [91], "x")),
            resetting(_B2_RETRY.tokens(0, [2], "b"), 1),
        ),
        stream(
            "error at index 0 of a higher epoch",
            "Withdraws, then ends the job.",
            Visible(_B2, [], "", "error", 1),
            _A1.tokens(0, [91], "x"),
            resetting(_B2.error(0, "deadline_exceeded"), 1),
        ),
        stream(
            "done at index 0 of a higher epoch",
            "Withdraws; the answer is empty.",
            Visible(_B2, [], "", "done", 1),
            _A1.tokens(0, [91], "x"),
            resetting(_B2.done(0), 1),
        ),
    ]
