"""One owner of the job that an explorer follows: what the worker's real objects do at each step.

Everything here is a function of small tuples: the real `TakeOver`, `ReplyStream` and
`PartitionState` are built, brought into the state in question, asked, and thrown away. What they
answered is remembered, so that exploring costs look-ups.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from aril.schemas import DoneRecord, Epoch, Timings, Usage, decode_reply
from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.queue.commit_text import BASE_END
from aril.worker.queue.ledger import Checkpoint
from aril.worker.replies.stream import ReplyStream
from aril.worker.takeover import rule as taking
from aril.worker.takeover.rule import TakeOver, Verdict
from tests.support.entries import JOBS, entry_of

if TYPE_CHECKING:
    from aril.schemas import ClaimRecord, ReplyRecord
    from tests.support.explorer_log import Tokens

JOB = "j"
OFFSET = 0  # of the job's record
ANSWER = 2  # tokens of a complete answer

# Phases of an owner. OURS, until it is settled, is what the service may keep across a rebalance.
UNREAD, CLAIM, CLAIMING, PROVE, OURS, ENDING, SETTLED, IDLE, DEAD = (
    "unread", "claim", "claiming", "prove", "ours", "ending", "settled", "idle", "dead",
)  # fmt: skip


class Owner(NamedTuple):
    """A process and the job in it, as far as it matters."""

    process: str
    generation: int  # captured at the present assignment
    phase: str
    epoch: Epoch = Epoch(0, 0)
    born: int = 0  # the entry's generation: behind that of the assignment while it is kept
    claimant: int = 0  # the generation that the take-over was begun in
    prefix: Tokens = ()  # tokens of the answer, as this writer believes
    batch: tuple[int, ...] = ()  # numbers of the records under way
    base: int = 0  # of epochs, in the present assignment
    raised: int | None = None  # the base to claim with once ownership is proved
    kept: bool = False  # not delivered again since the rebalance
    fresh: bool = False  # so the job is, or would be once it is read
    touched: bool = False  # something of it may be in the log
    stale: bool = False  # a completion of an assignment that ended is still in memory
    # Where partitions move one by one: `generation` is the epoch in which this one came.
    holds: bool = False  # to the coordinator it has the partition
    current: int = 0  # its epoch as a member, which rises while it has the partition
    joined: int = 0  # the epoch of its first assignment
    parted: bool = False  # it was told that the partition goes, and is a member still


class Finding(NamedTuple):
    """What a take-over learned."""

    verdict: Verdict
    visible: Tokens
    base: int  # the least one that is above all that was read
    unknown: Epoch  # where it would begin anew if the prefix were lost


def membership(process: str, generation: int) -> Membership:
    """Return who a process was in the group."""
    return Membership(generation, generation, process)


def assigned(
    process: str,
    generation: int,
    *,
    fresh: bool,
    base: int = 0,
    before: Owner | None = None,
    said: str = "",
) -> Owner:
    """Return the owner that a process is when it is given the partition and reads the job.

    `before` is what it was when it had the partition last; `said` is what is committed, if that is
    more than a base.
    """
    earlier = None
    if before is not None:
        earlier = _state(process, before.generation, OFFSET if before.fresh else OFFSET + 1)
        if before.phase != UNREAD:
            earlier.read(OFFSET)
    state = _state(process, generation, OFFSET if fresh else OFFSET + 1, base, earlier, said)
    if not state.read(OFFSET):
        raise AssertionError("a new assignment reads every record")
    mine = state.is_fresh(OFFSET)
    return Owner(
        process,
        generation,
        OURS if mine else CLAIM,
        Epoch(state.epoch_generation, 1),
        born=generation,
        claimant=generation,
        base=state.base,
        fresh=mine,
        touched=not mine,
    )


def unread(owner: Owner) -> Owner:
    """Return an owner before it has read the job."""
    return owner._replace(phase=UNREAD, epoch=Epoch(0, 0), born=0, claimant=0)


def reads(owner: Owner) -> Owner:
    """Return what an owner is once it has read the job."""
    read = assigned(owner.process, owner.generation, fresh=owner.fresh, base=owner.base)
    return read._replace(
        holds=owner.holds, current=owner.current, joined=owner.joined, parted=owner.parted
    )


def redelivered_to_old_state(process: str, generation: int) -> bool:
    """Tell what a state that outlives its assignment would do: whether it takes the job again."""
    state = _state(process, generation, OFFSET + 1)
    state.read(OFFSET)
    return state.read(OFFSET)


def parts(owner: Owner) -> str:
    """Return what an owner commits as it loses the partition."""
    end = OFFSET if owner.fresh else OFFSET + 1
    state = _state(owner.process, owner.generation, end, owner.base, said=f"{owner.base}{BASE_END}")
    if owner.phase != UNREAD:
        state.read(OFFSET)
        entry = entry_of(JOB, offset=OFFSET, owned=owner.fresh)
        entry.touched = owner.touched
        state.add(entry)
    state.part(owner.current)
    told = state.checkpoint()
    if told is None or told.position != OFFSET:
        raise AssertionError("an unfinished job is no committed one")
    return told.metadata


@cache
def is_fresh_to_next(said: str, generation: int) -> bool:
    """Tell whether the next owner takes the job for one that nobody has begun."""
    return assigned("z", generation, fresh=False, said=said).fresh


def keeps(owner: Owner, generation: int) -> bool:
    """Whether an owner's job goes on when its process is given the partition again."""
    if owner.phase not in {OURS, ENDING, SETTLED}:
        return False
    now = membership(owner.process, generation)
    return now.follows(membership(owner.process, owner.generation))


@cache
def checkpoint(process: str, generation: int) -> Checkpoint | None:
    """Return what an owner commits once the job is finished."""
    state = _state(process, generation, OFFSET + 1)
    state.read(OFFSET)
    entry = entry_of(JOB, offset=OFFSET, epoch=Epoch(generation, 1))
    state.add(entry)
    state.finish(entry)
    return state.to_commit()


def claim(owner: Owner) -> ClaimRecord:
    """Return the claim that an owner appends."""
    return _takeover(owner).claim()


def after_failed_claim(owner: Owner) -> Epoch:
    """Return the epoch under which an owner claims after a claim whose fate is unknown."""
    takeover = _takeover(owner)
    takeover.append_failed()
    return takeover.epoch


def after_failed_append(owner: Owner) -> Epoch:
    """Return the epoch under which an owner goes on after its stream broke."""
    return taking.next_attempt(owner.epoch)


def proved(owner: Owner, base: int) -> Epoch:
    """Return the epoch under which an owner claims after a proof with that base."""
    takeover = _takeover(owner)
    takeover.proved(base)
    return takeover.epoch


def read_back(
    owner: Owner, log: list[ReplyRecord], claim: ReplyRecord, *, truncated: bool
) -> Finding:
    """Judge an acknowledged claim by the log up to it."""
    takeover = _takeover(owner)
    takeover.claim()
    for record in log:
        takeover.read(record)
    takeover.read(claim)
    verdict = takeover.verdict(prefix_lost=truncated)
    visible, base = tuple(takeover.history.stream.token_ids), takeover.base_above()
    takeover.prefix_unknown()
    return Finding(verdict, visible, base, takeover.epoch)


@cache
def records(
    process: str, born: int, epoch: Epoch, sent: int, steps: int
) -> tuple[ReplyRecord, ...]:
    """Return the batch that a stream with `sent` tokens gives out after so many more steps.

    The answer's last token ends it. Each token tells its writer and its place.
    """
    stream = ReplyStream(job=JOB, epoch=epoch, worker=process)
    if sent:
        stream.begin(epoch, sent, claimed=True)
    for index in range(sent, sent + steps):
        stream.add([token(process, born, epoch, index)], "")
    if sent + steps == ANSWER:
        stream.close(lambda index, text: _done(process, epoch, index, text))
    decoded = [decode_reply(value) for value in stream.take()]
    return tuple(record for record in decoded if record is not None)


def token(process: str, born: int, epoch: Epoch, index: int) -> int:
    """Return an id that nobody else writes, nor the same process in another assignment."""
    return (((ord(process[0]) * 10 + born) * 100 + epoch.generation) * 10 + epoch.attempt) * 10 + (
        index
    )


def _takeover(owner: Owner) -> TakeOver:
    return TakeOver(job=JOB, worker=owner.process, generation=owner.claimant, epoch=owner.epoch)


def _state(
    process: str,
    generation: int,
    end_offset: int,
    base: int = 0,
    earlier: PartitionState | None = None,
    said: str = "",
) -> PartitionState:
    said = said or (f"{base}{BASE_END}" if base else "")
    before = Checkpoint(OFFSET, said) if said else None
    return PartitionState(JOBS, membership(process, generation), end_offset, before, earlier)


def _done(process: str, epoch: Epoch, index: int, text: str) -> DoneRecord:
    return DoneRecord(
        job=JOB,
        epoch=epoch,
        worker=process,
        index=index,
        text=text,
        finish_reason="stop",
        usage=Usage(1, index),
        adapter=None,
        digest=None,
        base="base",
        seed=0,
        timings=Timings(0.0, 0.0, 0.0),
    )
