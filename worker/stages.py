"""The life of a job: its stages, what may happen at each, and what follows.

Two rules. Every change of a job's stage is made here, by `Life.happen`, and nowhere else. And this
file knows no log, no clock and no engine: it says what is to be done, `aril.worker.lifecycle` does
it.

A job arrives, and where its answer goes is looked up. It waits for its turn. Where another worker
may have begun it, it is taken over first, and is then the next. Its prompt and its adapter are
prepared, it is gathered into a batch, it runs. It may give its row to a tenant that has less, and
goes on later behind what it has brought. Its answer, or the error that it ends in, is
written. When that is acknowledged the job is settled, and its offset is finished.

Whatever goes wrong on the way is an event like any other. An append that may or may not have landed
(BROKEN) sends the job back to the start, under the next epoch. A partition that is lost (DROPPED)
ends it here; its next owner takes it over. So each job ends once: SETTLED here, or DROPPED and
settled by somebody else.

Tokens are no events: they change nothing of the stage. Neither is a rebalance that leaves a running
job where it is (`aril.worker.queue.kept_jobs`): what changes is whose assignment its offset belongs
to.

An event for which a stage has no row is a mistake of ours: `Life.happen` raises.
"""

from __future__ import annotations

import enum
from typing import Final


@enum.unique
class Stage(enum.Enum):
    """How far a job is."""

    ARRIVED = "the partition of its answer is looked up"
    DOOMED = "the same, and then it is told an error"
    WAITING = "in the backlog"
    CLAIMING = "it is made ours to write"
    PARKED = "its reply log does not answer: it waits for that"
    PREPARING = "its prompt is tokenised, its adapters and constraint fetched"
    FETCHING = "it has to run alone, and waits for what it needs without the engine"
    GATHERING = "in the window"
    RUNNING = "in the engine"
    DISPLACED = "in the window again: it gave its row to a tenant that had less"
    FINISHING = "its answer is complete, the rest is written"
    CONDEMNED = "it is made ours to write, so that its error can be"
    FAILING = "its error is written"
    UNTOLD = "no end of its answer can be written: its record is put aside"
    SETTLING = "nothing is left to write of it; put aside, if its record has to be"
    SETTLED = "its offset is finished"
    DROPPED = "its assignment ended: nothing of it may be written or committed"


@enum.unique
class Event(enum.Enum):
    """What may happen to a job."""

    ROUTED = "it is known where its answer goes"
    UNROUTABLE = "its tenant has no reply topic"
    DUE = "its turn is near, and another worker may have begun it"
    CHOSEN = "its turn has come, and it is ours"
    OURS = "nobody else may write its answer now"
    ANSWERED = "its terminal stands already"
    SUSPECTED = "ours, but its writers crashed: it has to run alone"
    CONVICTED = "ours, but it crashes its worker with nothing beside it"
    UNREACHABLE = "its reply log does not answer"
    REACHABLE = "its reply log answers, or this job is to try it"
    PREPARED = "prompt, adapters and constraint are at hand"
    DELAYED = "it has the engine to itself, and what it needs takes a while"
    SUBMITTED = "its batch went to the engine"
    DISPLACED = "a tenant that has less needs its row"
    FINISHED = "the engine has brought all of its answer"
    FAILED = "it ends in an error, whoever says so"
    BROKEN = "an append of it failed, or may have"
    UNWRITABLE = "an append of it can never succeed"
    WRITTEN = "its terminal is acknowledged"
    SETTLED = "its record is put aside, where it has to be"
    ABANDONED = "the engine that it runs in has failed or hangs, and we are leaving"
    DROPPED = "its partition is no longer ours, or we are leaving"


class Effect(enum.Enum):
    """What is done about it. `TAKE_OVER`, `WAIT` and `SETTLE` may bring the next event at once."""

    WAIT = enum.auto()
    WAIT_FIRST = enum.auto()  # as the next
    WAIT_ALONE = enum.auto()  # for an engine with nothing in it
    TAKE_OVER = enum.auto()
    PREPARE = enum.auto()
    GATHER = enum.auto()
    PULL_BACK = enum.auto()  # out of the engine, to go on behind what it has brought
    LEAVE = enum.auto()  # backlog, window or engine, wherever it is
    FORGET = enum.auto()  # that it was to be taken over
    PARK = enum.auto()  # until its reply log answers
    UNPARK = enum.auto()
    WRITE_ANSWER = enum.auto()
    WRITE_ERROR = enum.auto()
    RELEASE = enum.auto()  # tell the next owner that we stop on purpose
    BREAK_OFF = enum.auto()  # tell nobody, as a crash would: it may be this job that did it
    NEXT_EPOCH = enum.auto()  # nothing more under the present one
    LOOK_UP_LATER = enum.auto()
    SETTLE = enum.auto()
    FINISH_OFFSET = enum.auto()
    NOTE_BEGUN = enum.auto()  # for whoever has its partition next


Row = tuple[Stage, tuple[Effect, ...]]


def _to(stage: Stage, *effects: Effect) -> Row:
    return stage, effects


TABLE: Final[dict[Stage, dict[Event, Row]]] = {
    Stage.ARRIVED: {
        Event.ROUTED: _to(Stage.WAITING, Effect.WAIT),
        Event.UNROUTABLE: _to(Stage.SETTLING, Effect.SETTLE),
        Event.FAILED: _to(Stage.DOOMED),
        Event.DROPPED: _to(Stage.DROPPED),
    },
    Stage.DOOMED: {
        Event.ROUTED: _to(Stage.CONDEMNED, Effect.TAKE_OVER),
        Event.UNROUTABLE: _to(Stage.SETTLING, Effect.SETTLE),
        Event.DROPPED: _to(Stage.DROPPED),
    },
    Stage.WAITING: {
        Event.CHOSEN: _to(Stage.PREPARING, Effect.PREPARE),
        Event.DUE: _to(Stage.CLAIMING, Effect.TAKE_OVER),
        Event.UNREACHABLE: _to(Stage.PARKED, Effect.FORGET, Effect.PARK),
        Event.FAILED: _to(Stage.CONDEMNED, Effect.LEAVE, Effect.TAKE_OVER),
        Event.DROPPED: _to(Stage.DROPPED, Effect.LEAVE, Effect.FORGET, Effect.RELEASE),
    },
    Stage.CLAIMING: {
        Event.OURS: _to(Stage.WAITING, Effect.WAIT_FIRST),
        Event.ANSWERED: _to(Stage.SETTLING, Effect.LEAVE, Effect.SETTLE),
        Event.SUSPECTED: _to(
            Stage.WAITING, Effect.LEAVE, Effect.RELEASE, Effect.NEXT_EPOCH, Effect.WAIT_ALONE
        ),
        Event.CONVICTED: _to(Stage.FAILING, Effect.LEAVE, Effect.WRITE_ERROR),
        Event.UNWRITABLE: _to(Stage.UNTOLD, Effect.LEAVE, Effect.SETTLE),
        Event.UNREACHABLE: _to(Stage.PARKED, Effect.LEAVE, Effect.PARK),
        Event.FAILED: _to(Stage.CONDEMNED, Effect.LEAVE, Effect.TAKE_OVER),
        Event.DROPPED: _to(Stage.DROPPED, Effect.LEAVE, Effect.RELEASE),
    },
    Stage.PARKED: {
        Event.REACHABLE: _to(Stage.WAITING, Effect.WAIT),
        Event.FAILED: _to(Stage.CONDEMNED, Effect.UNPARK, Effect.TAKE_OVER),
        Event.DROPPED: _to(Stage.DROPPED, Effect.UNPARK, Effect.RELEASE),
    },
    Stage.PREPARING: {
        Event.PREPARED: _to(Stage.GATHERING, Effect.GATHER),
        Event.DELAYED: _to(Stage.FETCHING, Effect.RELEASE, Effect.NEXT_EPOCH),
        Event.FAILED: _to(Stage.CONDEMNED, Effect.LEAVE, Effect.TAKE_OVER),
        Event.DROPPED: _to(Stage.DROPPED, Effect.LEAVE, Effect.RELEASE),
    },
    Stage.FETCHING: {
        Event.PREPARED: _to(Stage.WAITING, Effect.LEAVE, Effect.WAIT_ALONE),
        Event.FAILED: _to(Stage.CONDEMNED, Effect.LEAVE, Effect.TAKE_OVER),
        Event.DROPPED: _to(Stage.DROPPED, Effect.LEAVE, Effect.RELEASE),
    },
    Stage.GATHERING: {
        Event.SUBMITTED: _to(Stage.RUNNING, Effect.NOTE_BEGUN),
        Event.FAILED: _to(Stage.CONDEMNED, Effect.LEAVE, Effect.TAKE_OVER),
        Event.DROPPED: _to(Stage.DROPPED, Effect.LEAVE, Effect.RELEASE),
    },
    Stage.RUNNING: {
        Event.DISPLACED: _to(Stage.DISPLACED, Effect.PULL_BACK, Effect.GATHER),
        Event.FINISHED: _to(Stage.FINISHING, Effect.LEAVE, Effect.WRITE_ANSWER),
        Event.FAILED: _to(Stage.CONDEMNED, Effect.LEAVE, Effect.TAKE_OVER),
        Event.BROKEN: _to(Stage.ARRIVED, Effect.LEAVE, Effect.NEXT_EPOCH, Effect.LOOK_UP_LATER),
        Event.UNWRITABLE: _to(Stage.UNTOLD, Effect.LEAVE, Effect.SETTLE),
        Event.ABANDONED: _to(Stage.DROPPED, Effect.LEAVE, Effect.BREAK_OFF),
        Event.DROPPED: _to(Stage.DROPPED, Effect.LEAVE, Effect.RELEASE),
    },
    # What it had brought may still be on its way into the log.
    Stage.DISPLACED: {
        Event.SUBMITTED: _to(Stage.RUNNING),
        Event.FAILED: _to(Stage.CONDEMNED, Effect.LEAVE, Effect.TAKE_OVER),
        Event.BROKEN: _to(Stage.ARRIVED, Effect.LEAVE, Effect.NEXT_EPOCH, Effect.LOOK_UP_LATER),
        Event.UNWRITABLE: _to(Stage.UNTOLD, Effect.LEAVE, Effect.SETTLE),
        Event.DROPPED: _to(Stage.DROPPED, Effect.LEAVE, Effect.RELEASE),
    },
    Stage.FINISHING: {
        Event.WRITTEN: _to(Stage.SETTLING, Effect.SETTLE),
        Event.BROKEN: _to(Stage.ARRIVED, Effect.NEXT_EPOCH, Effect.LOOK_UP_LATER),
        Event.UNWRITABLE: _to(Stage.UNTOLD, Effect.SETTLE),
        Event.DROPPED: _to(Stage.DROPPED, Effect.RELEASE),
    },
    # What it had brought may still be on its way into the log when its error is known.
    Stage.CONDEMNED: {
        Event.OURS: _to(Stage.FAILING, Effect.WRITE_ERROR),
        Event.SUSPECTED: _to(Stage.FAILING, Effect.WRITE_ERROR),
        Event.CONVICTED: _to(Stage.FAILING, Effect.WRITE_ERROR),
        Event.ANSWERED: _to(Stage.SETTLING, Effect.SETTLE),
        Event.UNREACHABLE: _to(Stage.CONDEMNED, Effect.PARK),
        Event.REACHABLE: _to(Stage.CONDEMNED, Effect.TAKE_OVER),
        Event.BROKEN: _to(Stage.DOOMED, Effect.UNPARK, Effect.NEXT_EPOCH, Effect.LOOK_UP_LATER),
        Event.UNWRITABLE: _to(Stage.UNTOLD, Effect.UNPARK, Effect.SETTLE),
        Event.DROPPED: _to(Stage.DROPPED, Effect.UNPARK, Effect.RELEASE),
    },
    Stage.FAILING: {
        Event.WRITTEN: _to(Stage.SETTLING, Effect.SETTLE),
        Event.BROKEN: _to(Stage.DOOMED, Effect.NEXT_EPOCH, Effect.LOOK_UP_LATER),
        Event.UNWRITABLE: _to(Stage.UNTOLD, Effect.SETTLE),
        Event.DROPPED: _to(Stage.DROPPED, Effect.RELEASE),
    },
    # A claim of ours may stand there without an end: too large a record is refused, a release not.
    Stage.UNTOLD: {
        Event.SETTLED: _to(Stage.SETTLED, Effect.FINISH_OFFSET),
        Event.DROPPED: _to(Stage.DROPPED, Effect.RELEASE),
    },
    Stage.SETTLING: {
        Event.SETTLED: _to(Stage.SETTLED, Effect.FINISH_OFFSET),
        Event.DROPPED: _to(Stage.DROPPED),
    },
    Stage.SETTLED: {Event.DROPPED: _to(Stage.DROPPED)},  # before its offset could be finished
    Stage.DROPPED: {Event.DROPPED: _to(Stage.DROPPED)},
}

# How it ends is known: a cancel or a deadline comes too late.
ENDING: Final = frozenset(stage for stage, rows in TABLE.items() if Event.FAILED not in rows)


# Nothing of a job that was at no other stage can be in its reply log.
UNTOUCHED: Final = frozenset({Stage.ARRIVED, Stage.WAITING, Stage.PARKED, Stage.DROPPED})


# At these it comes to its end without another turn.
GOES_ON: Final = frozenset(
    {Stage.RUNNING, Stage.FINISHING, Stage.FAILING, Stage.UNTOLD, Stage.SETTLING, Stage.SETTLED}
)


class UnexpectedEventError(RuntimeError):
    """An event at a stage that has no row for it: a mistake of ours."""

    def __init__(self, stage: Stage, event: Event) -> None:
        super().__init__(f"{event.name} at {stage.name}: the table has no such row")


class Life:
    """One job's stage."""

    __slots__ = ("_stage",)

    def __init__(self, stage: Stage = Stage.ARRIVED) -> None:
        self._stage = stage

    @property
    def stage(self) -> Stage:
        """How far the job is."""
        return self._stage

    def happen(self, event: Event) -> tuple[Effect, ...]:
        """Go on to the next stage; return what has to be done. Raises UnexpectedEventError."""
        row = TABLE[self._stage].get(event)
        if row is None:
            raise UnexpectedEventError(self._stage, event)
        self._stage, effects = row
        return effects
