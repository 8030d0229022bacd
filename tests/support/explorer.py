"""Every interleaving of a job's owners on one reply log, up to a bound; breadth first.

A state is the log's place, the records that may still land late, the owners, and the group's
generation (`tests.support.explorer_moves`). In each of them must hold: no answer is mixed from two
writers, nothing counts behind a terminal, no token goes without a reset, what is committed is
finished; and the last owner, if nobody disturbs it any more, finishes and commits.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.explorer_log import ViolationError
from tests.support.explorer_moves import Moves
from tests.support.explorer_one_by_one import OneByOne
from tests.support.explorer_state import Bounds, Flaws, Remedies, Start, State

if TYPE_CHECKING:
    from tests.support.explorer_log import Place
    from tests.support.explorer_owner import Owner

LOST = "the offset is committed, the answer is not finished: the job is lost;"
SOLO_STEPS = 40  # in which an owner that nobody disturbs has to finish
SOLO_TOLD = 9


@dataclass(slots=True)
class Explored:
    """What came out."""

    states: int = 0
    resets: int = 0
    violation: str | None = None
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = [f"{self.states} states, at most {self.resets} resets: {self.violation or 'holds'}"]
        return "\n  ".join(told + self.trace)


class Explorer:
    """One exploration."""

    def __init__(
        self,
        bounds: Bounds,
        start: Start,
        flaws: Flaws | None = None,
        remedies: Remedies | None = None,
    ) -> None:
        self._bounds = bounds
        kind = OneByOne if bounds.one_by_one else Moves
        self._next = kind(bounds, start, flaws or Flaws(), remedies or Remedies())
        self._log = self._next.log
        self._finishes: set[tuple[Place, Owner]] = set()

    def run(self) -> Explored:
        """Visit every state; stop at the first violation, with the shortest way there."""
        explored = Explored()
        first = self._next.first()
        came_from: dict[State, tuple[State, str] | None] = {first: None}
        todo = deque([first])
        while todo and explored.violation is None:
            state = todo.popleft()
            try:
                self._check(state)
                for told, after in self._next.moves(state):
                    if after not in came_from:
                        came_from[after] = (state, told)
                        todo.append(after)
            except ViolationError as violation:
                explored.violation = str(violation)
                explored.trace = self._trace(state, came_from)
            if len(came_from) > self._bounds.states:
                raise RuntimeError(f"more than {self._bounds.states} states: lower the bounds")
        explored.states, explored.resets = len(came_from), self._log.most_resets
        return explored

    def _check(self, state: State) -> None:
        finished = self._log.stream(state.place).finished
        if state.committed and not finished:
            raise ViolationError(LOST)
        if state.generation == self._next.last_generation and not state.committed:
            self._check_progress(state)

    def _check_progress(self, state: State) -> None:
        """Let the last owner go on alone, from here: it must finish and commit."""
        [owner] = [each for each in state.owners if self._next.is_last(state, each)]
        if (state.place, owner) in self._finishes:
            return
        alone = State(state.place, (), (owner,), state.generation, 0, committed=False)
        seen, told = [(alone.place, owner)], ["and undisturbed from there:"]
        while not alone.committed:
            moves = list(self._next.work(alone, 0))
            if not moves or len(seen) > SOLO_STEPS:
                raise ViolationError(
                    " ".join(["stuck: the last owner never finishes;", *told[:SOLO_TOLD]])
                )
            step, alone = moves[-1]
            told.append(f"{step} -> {self._log.tell(alone.place)};")
            seen.append((alone.place, alone.owners[0]))
        if not self._log.stream(alone.place).finished:
            raise ViolationError(" ".join([LOST, *told]))
        self._finishes.update(seen)

    def _trace(self, state: State, came_from: dict[State, tuple[State, str] | None]) -> list[str]:
        lines: list[str] = []
        while (step := came_from[state]) is not None:
            before, told = step
            acted = set(state.owners) - set(before.owners)
            who = "".join(owner.process for owner in acted)
            lines.append(f"[{state.generation}] {who} {told} -> {self._log.tell(state.place)}")
            state = before
        return lines[::-1]
