"""What can happen next to a job's owners: each one's own steps, mishaps, and rebalances.

Owners crash, go on as zombies, have appends fail, fail and land late, or land twice, and the
partition moves at any point: to a new process, or back to one that had it. What an owner does at
each step is asked of the real objects, by `tests.support.explorer_owner`; here stands what
`aril.worker.lifecycle`, `aril.worker.takeover.claims` and `aril.worker.replies.answers` make of it.

Sound shortenings: an acknowledgement comes with the landing of a batch's last record, since what
an owner does in between is what it does just before or just after; a record that is "lost" is one
that never lands late; what is finished and committed is explored no further, because a finished
stream changes no more, which is asserted on every record that lands in one.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from aril.schemas import Epoch, TokensRecord
from aril.worker.takeover.rule import Verdict
from tests.support import explorer_owner as model
from tests.support.explorer_log import EMPTY, ExploredLog
from tests.support.explorer_owner import (
    ANSWER,
    CLAIM,
    CLAIMING,
    DEAD,
    ENDING,
    IDLE,
    OURS,
    PROVE,
    SETTLED,
    UNREAD,
    Owner,
)
from tests.support.explorer_state import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aril.worker.queue.ledger import Checkpoint
    from tests.support.explorer_log import Place, Tokens
    from tests.support.explorer_owner import Finding
    from tests.support.explorer_state import Bounds, Flaws, Remedies, Start

# What an owner forgets as it drops the job.
_OF_THE_JOB = (
    "epoch", "born", "claimant", "prefix", "batch", "base", "raised", "kept", "fresh", "touched",
)  # fmt: skip

OLD = "old"  # a writer from before the group was deleted; no member of the new one


class Moves:
    """All that can happen next. Places and records are those of one log."""

    def __init__(self, bounds: Bounds, start: Start, flaws: Flaws, remedies: Remedies) -> None:
        self.log = ExploredLog()
        self.last_generation = start.first_generation + bounds.generations - 1
        self._bounds = bounds
        self._start = start
        self._flaws = flaws
        self._remedies = remedies
        self._read_back = cache(self._read_back_anew)
        self._claims = cache(self._claim_anew)
        self._batches = cache(self._batch_anew)

    def is_last(self, state: State, owner: Owner) -> bool:
        """Whether an owner is the present one."""
        return owner.generation == state.generation and owner.process != OLD

    def first(self) -> State:
        """Return the state in which it begins."""
        start, place = self._start, EMPTY
        owners: list[Owner] = []
        generation = start.first_generation
        for number in range(max(1, start.fresh)):
            generation = start.first_generation + number
            owner = model.assigned("abc"[number], generation, fresh=number < start.fresh)
            owners.append(model.unread(owner) if start.unread else owner)
        if start.old_epoch is not None:
            epoch = Epoch(*start.old_epoch)
            [record] = model.records(OLD, 0, epoch, 0, 1)
            place = self.log.append(place, self.log.record(record, ()))
            visible = tuple(self.log.stream(place).token_ids)
            owners.append(
                Owner(OLD, epoch.generation, OURS, epoch, claimant=epoch[0], prefix=visible)
            )
        return State(place, (), tuple(owners), generation, self._bounds.faults, committed=False)

    def moves(self, state: State) -> Iterator[tuple[str, State]]:
        """Return everything that can happen next, and where it leads."""
        if state.committed:
            return
        for at, record in enumerate(state.late):
            rest = state.late[:at] + state.late[at + 1 :]
            yield f"late: {self.log.tell_record(record)}", self._land(state, record, rest)
        for at, owner in enumerate(state.owners):
            if owner.phase != DEAD:
                yield from self.work(state, at)
                yield from self._mishaps(state, at)
        if state.generation < self.last_generation:
            yield from self._rebalances(state)

    def _land(self, state: State, record: int, late: tuple[int, ...]) -> State:
        place = self.log.append(state.place, record)
        return state._replace(place=place, late=self._unspent(place, late))

    def _unspent(self, place: Place, late: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(each for each in late if not self.log.is_spent(place, each)))

    def work(self, state: State, at: int) -> Iterator[tuple[str, State]]:
        """Return what an owner does when nothing goes wrong; the quickest way on comes last."""
        owner = state.owners[at]
        if owner.kept:
            yield "redelivered", put(state, at, owner._replace(kept=False, born=owner.generation))
        if owner.phase == UNREAD:
            yield "reads", put(state, at, model.reads(owner))
        elif owner.batch:
            yield self._landed(state, at)
        elif owner.phase == CLAIM:
            batch = (self._claims(owner.process, owner.epoch, owner.claimant),)
            yield "claims", put(state, at, owner._replace(phase=CLAIMING, batch=batch))
        elif owner.phase == PROVE and not owner.kept:
            yield self._proof(state, at)
        elif owner.phase == OURS:
            for steps in range(len(owner.prefix) < ANSWER, ANSWER - len(owner.prefix) + 1):
                yield self._writes(state, at, steps)
        if owner.phase == SETTLED and not owner.kept:
            yield self._commits(state, at)
        if owner.stale and self._flaws.stale_completion:
            accepted = self._accepts(state, owner, owner.generation)
            after = put(state, at, owner._replace(stale=False))
            yield "stale completion", after._replace(committed=accepted)

    def _landed(self, state: State, at: int) -> tuple[str, State]:
        owner = state.owners[at]
        head, rest = owner.batch[0], owner.batch[1:]
        after = self._land(state, head, state.late)
        owner = owner._replace(batch=rest)
        if owner.phase == CLAIMING:
            owner = self._judged(owner, state.place, head)
        elif owner.phase == ENDING and not rest:
            finished = self.log.stream(after.place).finished
            if finished or not self._remedies.terminal_read_back:
                owner = owner._replace(phase=SETTLED, prefix=())
            else:
                owner = self._again(owner)
        return f"lands: {self.log.tell_record(head)}", put(after, at, owner)

    def _judged(self, owner: Owner, place: Place, claim: int) -> Owner:
        found = self._read_back(owner.process, owner.epoch, owner.claimant, place, claim)
        if found.verdict is Verdict.ANSWERED:
            return owner._replace(phase=SETTLED)
        if found.verdict is Verdict.CONTESTED:
            return owner._replace(phase=PROVE, raised=found.base)
        if self._start.truncated:
            return owner._replace(phase=OURS, epoch=found.unknown, prefix=())
        return owner._replace(phase=OURS, prefix=found.visible)

    def _proof(self, state: State, at: int) -> tuple[str, State]:
        owner = state.owners[at]
        if not self._accepts(state, owner, owner.generation):
            return "is refused the proof", put(state, at, idle(owner))
        base = max(owner.base, owner.raised or 0)
        epoch = model.proved(owner, base)
        raised = owner._replace(phase=CLAIM, epoch=epoch, base=base, raised=None)
        after = put(state, at, raised)
        if not self._flaws.base_forgotten:
            after = after._replace(base=base, said="")
        return "proves that it owns the partition", after

    def _writes(self, state: State, at: int, steps: int) -> tuple[str, State]:
        owner = state.owners[at]
        batch, prefix = self._batches(owner.process, owner.born, owner.epoch, owner.prefix, steps)
        phase = ENDING if len(prefix) == ANSWER else OURS
        if phase == ENDING and self._flaws.early_commit:
            phase = SETTLED
        return f"writes {steps} and on", put(
            state, at, owner._replace(phase=phase, prefix=prefix, batch=batch, touched=True)
        )

    def _commits(self, state: State, at: int) -> tuple[str, State]:
        owner = state.owners[at]
        told = model.checkpoint(owner.process, owner.generation)
        under = state.generation if self._flaws.resent_commit else owner.generation
        accepted = self._accepts(state, owner, under) and _covers(told)
        after = put(state, at, idle(owner))
        late = self._unspent(state.place, (*state.late, *owner.batch))
        return f"commits: {accepted}", after._replace(committed=accepted, late=late)

    def _accepts(self, state: State, owner: Owner, generation: int) -> bool:
        """Answer as the group's coordinator: it asks who commits, never what they own."""
        return generation == state.generation and owner.process != OLD

    def _mishaps(self, state: State, at: int) -> Iterator[tuple[str, State]]:
        owner = state.owners[at]
        lasts = state.generation == self.last_generation and self.is_last(state, owner)
        if not lasts:
            late = self._unspent(state.place, state.late + owner.batch)
            yield "crashes", put(state, at, _dead(owner))._replace(late=late)
        if not state.faults:
            return
        fewer = state._replace(faults=state.faults - 1)
        if owner.phase == PROVE:  # the answer to the proof was lost, and perhaps the proof
            yield "proves nothing", put(fewer, at, self._again(owner))
            _, proved = self._proof(fewer, at)
            yield "proves unawares", put(proved, at, self._again(owner))
        if not owner.batch or owner.phase == SETTLED:
            return
        head, rest = owner.batch[0], owner.batch[1:]
        broken = self._again(owner)
        late = self._unspent(state.place, state.late + owner.batch)
        yield "fails", put(fewer, at, broken)._replace(late=late)
        landed = self._land(fewer, head, state.late + rest)
        yield "lands and fails", put(landed, at, broken)
        told, twice = self._landed(fewer, at)
        late = self._unspent(twice.place, (*twice.late, head))
        yield f"{told}, and later again", twice._replace(late=late)

    def _again(self, owner: Owner) -> Owner:
        """Claim under the next attempt: in the same take-over, or in a new one."""
        if owner.phase in {CLAIMING, PROVE}:
            epoch, claimant = model.after_failed_claim(owner), owner.claimant
        else:
            epoch, claimant = model.after_failed_append(owner), owner.born
        return owner._replace(
            phase=CLAIM, epoch=epoch, claimant=claimant, prefix=(), batch=(), raised=None
        )

    def _rebalances(self, state: State) -> Iterator[tuple[str, State]]:
        """Return who can have the partition next: also after its owner has said what it leaves."""
        generation = state.generation + 1
        yield from self._next_owners(state)
        for at, owner in enumerate(state.owners):
            if owner.phase == DEAD or not self.is_last(state, owner):
                continue
            said = model.parts(owner)
            if not model.is_fresh_to_next(said, generation):
                continue
            for told, after in self._next_owners(state._replace(said=said)):
                left = after.owners[at]
                gone = left.generation != generation and not owner.touched
                if gone and not self._flaws.begun_after_parting:  # it waits, and is dropped
                    after = put(after, at, idle(left))  # noqa: PLW2901 - the same, further on
                yield f"{owner.process} parts; {told}", after

    def _next_owners(self, state: State) -> Iterator[tuple[str, State]]:
        generation = state.generation + 1
        moved = state._replace(generation=generation)
        base, said = state.base, state.said
        processes = [each.process for each in state.owners if each.process != OLD]
        if len(processes) < self._bounds.processes:
            name = "abc"[len(processes)]
            new = model.assigned(name, generation, fresh=False, base=base, said=said)
            yield f"{new.process} is new", moved._replace(owners=(*state.owners, new))
        for at, owner in enumerate(state.owners):
            if owner.phase == DEAD or owner.process == OLD:
                continue
            late = self._unspent(state.place, state.late + owner.batch)
            new = model.assigned(
                owner.process, generation, fresh=False, before=owner, base=base, said=said
            )
            if owner.phase == UNREAD:
                yield f"{owner.process} again, unread", put(moved, at, model.unread(new))
            new = new._replace(stale=owner.phase == SETTLED and self._flaws.stale_completion)
            if self._flaws.stale_state and not model.redelivered_to_old_state(
                owner.process, owner.generation
            ):
                new = idle(new)
            yield f"{owner.process} again", put(moved, at, new)._replace(late=late)
            if model.keeps(owner, generation):
                kept = owner._replace(generation=generation, kept=True, base=state.base)
                yield f"{owner.process} keeps it", put(moved, at, kept)

    # --- the real objects, asked once for each question

    def _claim_anew(self, process: str, epoch: Epoch, claimant: int) -> int:
        owner = Owner(process, claimant, CLAIM, epoch, claimant=claimant)
        return self.log.record(model.claim(owner), ())

    def _read_back_anew(
        self, process: str, epoch: Epoch, claimant: int, place: Place, claim: int
    ) -> Finding:
        owner = Owner(process, claimant, CLAIMING, epoch, claimant=claimant)
        return model.read_back(
            owner,
            self.log.path(place),
            self.log.value(claim),
            truncated=self._start.truncated,
        )

    def _batch_anew(
        self, process: str, born: int, epoch: Epoch, prefix: Tokens, steps: int
    ) -> tuple[tuple[int, ...], Tokens]:
        batch = []
        for record in model.records(process, born, epoch, len(prefix), steps):
            batch.append(self.log.record(record, prefix))
            if isinstance(record, TokensRecord):
                prefix += record.ids
        return tuple(batch), prefix


def put(state: State, at: int, owner: Owner) -> State:
    """Return the state with another owner at a place."""
    return state._replace(owners=(*state.owners[:at], owner, *state.owners[at + 1 :]))


def idle(owner: Owner) -> Owner:
    """Return an owner that has dropped the job."""
    return owner._replace(**{name: Owner._field_defaults[name] for name in _OF_THE_JOB}, phase=IDLE)


def _dead(owner: Owner) -> Owner:
    return Owner(owner.process, 0, DEAD)


def _covers(told: Checkpoint | None) -> bool:
    return told is not None and told.position > model.OFFSET
