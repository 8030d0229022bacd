"""Adapter slots, and whose turn it is to take one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aril.worker.engine.starvation import StarvationGuard

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.sequence import TokenSequence


class SlotPool(Protocol):
    """Adapter slots of the device, as far as planning needs them."""

    def can_acquire(self, adapters: Sequence[AdapterWeights]) -> bool:
        """Whether `acquire` would give slots; changes nothing."""

    def acquire(self, adapters: Sequence[AdapterWeights]) -> tuple[int, ...] | None:
        """Hold each adapter's slot once more, or take an idle one for it; None: not now.

        What it raises is an adapter's fault: its sequence is given up, see `Scheduler.refused`.
        """

    def release(self, slots: Sequence[int]) -> None:
        """Undo one `acquire`; a slot that nobody holds may be given to another adapter."""

    def arrived(self, slots: Sequence[int]) -> bool:
        """Whether what these slots are to hold is there: rows of theirs may run. Nobody waits."""

    def expect(self) -> bool:
        """Let the next step wait for what has not arrived; False if there is no such thing."""


class SlotTurns:
    """Gives sequences their adapters' slots, in an order in which nobody waits for ever.

    In a step: `begin`, then of each waiting sequence, the oldest first, `free`, and `take` of one
    that is admitted.
    """

    def __init__(self, pool: SlotPool, max_passes: int) -> None:
        self._pool = pool
        self._guard = StarvationGuard(max_passes)

    def begin(self) -> None:
        """Start a round over the waiting sequences."""
        self._guard.begin()

    def free(self, sequence: TokenSequence, running: Iterable[TokenSequence]) -> bool:
        """Whether the sequence may have its slots now; if not, that is noted."""
        if not sequence.adapters:
            return True
        if self._guard.closed(sequence.digests):
            return False
        if not self._pool.can_acquire(sequence.adapters):
            self._guard.refused(sequence.digests, running)
            return False
        return True

    def take(self, sequence: TokenSequence) -> Exception | None:
        """Give it the slots that were `free`; returns why an adapter could not be loaded."""
        if sequence.adapters:
            try:
                slots = self._pool.acquire(sequence.adapters)
            except Exception as error:  # noqa: BLE001 - told by whoever takes it from `refused`
                return error
            if slots is None:
                raise RuntimeError(f"no slot for {sequence!r} that was checked to be there")
            sequence.slots = slots
        self._guard.admitted(sequence.digests)
        return None

    def arrived(self, sequence: TokenSequence) -> bool:
        """Whether a sequence that has its slots can run."""
        return not sequence.slots or self._pool.arrived(sequence.slots)

    def expect(self) -> bool:
        """Let the next step wait for what has not arrived; False if there is no such thing."""
        return self._pool.expect()

    def release(self, sequence: TokenSequence) -> None:
        """Take back its slots."""
        self._pool.release(sequence.slots)
        sequence.slots = ()

    def left(self, sequence: TokenSequence, waiting: Iterable[TokenSequence]) -> None:
        """Note that a sequence is gone; `waiting` are those that are left."""
        if all(other.digests != sequence.digests for other in waiting):
            self._guard.forget(sequence.digests)
