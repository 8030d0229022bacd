"""Who must leave an adapter slot so that nobody waits for one for ever.

Between adapters, in the engine; which tenant's job comes to the engine next was decided before
(worker/batching).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aril.worker.engine.sequence import TokenSequence


@dataclass(slots=True)
class _Wait:
    passes: int = 0  # younger jobs with an adapter that were admitted meanwhile
    holder: str | None = None  # the adapter that takes no younger jobs until this wait is over


class StarvationGuard:
    """Admission order among adapters when there are more of them than slots.

    A job whose adapter gets no slot is overtaken by younger jobs of other adapters. After
    `max_passes` such overtakings one slot holder, the one with the least work left and not yet
    chosen for another wait, takes no job younger than the waiting one any more. Its running jobs
    end after at most their `max_tokens`, its slot is idle then, and the waiting job is the oldest
    that asks for it. Jobs of one adapter never overtake each other, and jobs on the backbone
    neither wait nor count.
    """

    def __init__(self, max_passes: int) -> None:
        if max_passes < 0:
            raise ValueError(f"max_passes must not be negative, got {max_passes}")
        self.max_passes = max_passes
        self._waits: dict[tuple[str, ...], _Wait] = {}
        self._closed: set[tuple[str, ...]] = set()
        self._all_closed = False
        self._refused: list[_Wait] = []

    def begin(self) -> None:
        """Start a round over the waiting jobs, oldest first."""
        self._closed.clear()
        self._all_closed = False
        self._refused.clear()

    def closed(self, digests: tuple[str, ...]) -> bool:
        """Whether younger jobs of these adapters have to wait in this round."""
        return (
            self._all_closed
            or digests in self._closed
            or any((digest,) in self._closed for digest in digests)
        )

    def refused(self, digests: tuple[str, ...], running: Iterable[TokenSequence]) -> None:
        """Note that the oldest waiting job of these adapters got no slots."""
        wait = self._waits.setdefault(digests, _Wait())
        self._closed.add(digests)
        self._refused.append(wait)
        if wait.passes < self.max_passes:
            return
        if len(digests) > 1:
            self._all_closed = True
            return
        work = _work_left(running)
        if wait.holder not in work:  # not chosen yet, or its slot went to an older job
            taken = {other.holder for other in self._waits.values()}
            open_holders = [holder for holder in work if holder not in taken]
            wait.holder = min(open_holders, key=work.__getitem__, default=None)
        if wait.holder is not None:
            self._closed.add((wait.holder,))

    def admitted(self, digests: tuple[str, ...]) -> None:
        """Note that a job was admitted, past every job refused so far in this round."""
        if not digests:
            return
        for wait in self._refused:
            wait.passes += 1
        self._waits.pop(digests, None)

    def forget(self, digests: tuple[str, ...]) -> None:
        """Drop the wait of adapters that no waiting job asks for any more."""
        self._waits.pop(digests, None)


def _work_left(running: Iterable[TokenSequence]) -> dict[str, int]:
    """Bound the tokens until each running adapter's slot is idle if it takes no new jobs."""
    work: dict[str, int] = {}
    for sequence in running:
        for digest in sequence.digests:
            steps = sequence.pending + sequence.remaining
            work[digest] = max(work.get(digest, 0), steps)
    return work
