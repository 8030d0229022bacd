"""What else can happen where partitions move one by one, in epochs of members (KIP-848).

The generation of a state is the group's epoch. It rises with everybody who comes and goes; the
partition stays meanwhile, or moves. Its holder's own epoch follows, or lags behind. Who gets it
does so in the group's epoch of then, which is above any that the holder has had: so promises the
coordinator (docs/decisions/097). The coordinator takes commits from a member in its epoch, and does
not ask whether it holds the partition: here that is the holder alone, as ours commits nothing of
what it has given away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import explorer_owner as model
from tests.support.explorer_moves import OLD, Moves, idle, put
from tests.support.explorer_owner import DEAD, UNREAD, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.explorer_state import State


class OneByOne(Moves):
    """Moves of a group whose brokers assign."""

    def is_last(self, state: State, owner: Owner) -> bool:  # noqa: ARG002 - it may lag behind
        """Whether an owner has the partition."""
        return owner.holds

    def first(self) -> State:
        """Return the state in which it begins."""
        state = super().first()
        owners = tuple(
            owner._replace(
                holds=super(OneByOne, self).is_last(state, owner),
                current=owner.generation,
                joined=owner.generation,
            )
            for owner in state.owners
        )
        return state._replace(owners=owners)

    def _accepts(self, state: State, owner: Owner, generation: int) -> bool:  # noqa: ARG002 - see above
        return owner.holds or (self._flaws.commit_after_revoke and owner.parted)

    def _rebalances(self, state: State) -> Iterator[tuple[str, State]]:
        """Return whether the partition stays, or who has it next and what goes with it."""
        later = state._replace(generation=state.generation + 1)
        yield from self._moved(state)
        for at, owner in enumerate(state.owners):
            if owner.phase == DEAD or not owner.holds:
                continue
            yield f"{owner.process} stays and lags behind", later
            risen = owner._replace(current=later.generation)
            yield f"{owner.process} stays, in a higher epoch", put(later, at, risen)
            target = later.generation if self._flaws.parted_in_target else 0
            said = model.parts(owner._replace(current=max(owner.current, target)))
            left = owner._replace(parted=True)
            if not owner.touched and not self._flaws.begun_after_parting:  # it waits: dropped
                left = idle(left)
            for told, after in self._moved(put(state, at, left)._replace(said=said)):
                yield f"{owner.process} parts; {told}", after

    def _moved(self, state: State) -> Iterator[tuple[str, State]]:
        """Return who has the partition in the next epoch: a new process, or one that had it."""
        generation = state.generation + 1
        base, said = state.base, state.said
        gone = state._replace(
            generation=generation,
            owners=tuple(each._replace(holds=False) for each in state.owners),
        )
        living = [each.process for each in state.owners if each.process != OLD]
        if len(living) < self._bounds.processes:
            name = "abc"[len(living)]
            new = model.assigned(name, generation, fresh=False, base=base, said=said)
            yield f"{name} is new", gone._replace(owners=(*gone.owners, self._won(new)))
        for at, owner in enumerate(state.owners):
            if owner.phase == DEAD or owner.process == OLD:
                continue
            epoch = owner.joined if self._flaws.epoch_of_joining else generation
            after = gone
            if self._flaws.same_epoch_again and owner.holds:
                epoch, after = owner.generation, gone._replace(generation=state.generation)
            new = model.assigned(owner.process, epoch, fresh=False, base=base, said=said)
            new = self._won(new)._replace(joined=owner.joined)
            late = self._unspent(state.place, state.late + owner.batch)
            if owner.phase == UNREAD:
                yield f"{owner.process} again, unread", put(after, at, model.unread(new))
            yield f"{owner.process} again", put(after, at, new)._replace(late=late)

    def _won(self, owner: Owner) -> Owner:
        epoch = owner.generation
        return owner._replace(holds=True, current=epoch, joined=epoch)
