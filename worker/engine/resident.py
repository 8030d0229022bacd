"""Adapters resident on the device: who has which slot, and the copy when one is filled.

Who may ask for a slot, and who must leave one, is for the scheduler and starvation.py to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.adapters import SlotLru

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.copy_stream import Arrival
    from aril.worker.engine.lora import AdapterLayers


class ResidentAdapters:
    """The scheduler's pool of slots. Weights are copied when a slot is taken.

    On a CPU that is between two steps; on a GPU beside the next ones: see `arrived`.
    """

    def __init__(self, slots: int, layers: AdapterLayers) -> None:
        self._slots = SlotLru(slots)
        self._layers = layers
        self._under_way: dict[int, Arrival] = {}  # by slot
        self.loads = 0

    @property
    def used(self) -> int:
        """Slots whose adapter a running sequence needs."""
        return self._slots.pinned

    @property
    def digests(self) -> tuple[str, ...]:
        """Adapters that are in a slot, or on their way there; from any thread."""
        return self._slots.digests

    def can_acquire(self, adapters: Sequence[AdapterWeights]) -> bool:
        """Whether each of the adapters is in a slot, or there is one for it, all at once."""
        return self._slots.can_acquire([adapter.digest for adapter in adapters])

    def acquire(self, adapters: Sequence[AdapterWeights]) -> tuple[int, ...] | None:
        """Hold each adapter's slot once more, or fill an idle one; None while too many are in use.

        All or none. Raises what `AdapterLayers.load` raises; nothing is held then, and the slot of
        the one that failed is empty.
        """
        if not self.can_acquire(adapters):
            return None
        held: dict[int, int] = {}  # slots by place in the order asked for
        # What is resident first, so that nothing that is filled takes its slot.
        order = sorted(range(len(adapters)), key=lambda at: adapters[at].digest not in self._slots)
        try:
            for at in order:
                held[at] = self._acquire(adapters[at])
        except BaseException:
            self.release(tuple(held.values()))
            raise
        return tuple(held[at] for at in range(len(adapters)))

    def release(self, slots: Sequence[int]) -> None:
        """Undo one `acquire`."""
        for slot in slots:
            self._slots.release(slot)

    def arrived(self, slots: Sequence[int]) -> bool:
        """Whether the adapters of these slots are there; asks the device, and does not wait."""
        for slot in slots:
            arrival = self._under_way.get(slot)
            if arrival is not None and arrival.query():
                del self._under_way[slot]
        return self._under_way.keys().isdisjoint(slots)

    def expect(self) -> bool:
        """Let the device wait for what is under way, before the next step; False if nothing is.

        All slots have arrived then, as far as the host is concerned.
        """
        expected = bool(self._under_way)
        for arrival in self._under_way.values():
            arrival.wait()
        self._under_way.clear()
        return expected

    def _acquire(self, adapter: AdapterWeights) -> int:
        placement = self._slots.acquire(adapter.digest)
        if placement is None:
            raise RuntimeError(f"no slot for {adapter.name!r} that was checked to be there")
        if placement.needs_load:
            self._under_way.pop(placement.slot, None)  # somebody else's, who is gone
            try:
                arrival = self._layers.load(placement.slot, adapter)
            except BaseException:
                self._slots.forget(placement.slot)
                raise
            if arrival is not None:
                self._under_way[placement.slot] = arrival
            self.loads += 1
        return placement.slot
