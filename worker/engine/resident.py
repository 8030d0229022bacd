"""Adapters resident on the device: who has which slot, and the copy when one is filled.

Who may ask for a slot, and who must leave one, is for the scheduler and starvation.py to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.adapters import SlotLru

if TYPE_CHECKING:
    from worker.adapters import AdapterWeights
    from worker.engine.lora import AdapterLayers


class ResidentAdapters:
    """The scheduler's pool of slots. Weights are copied when a slot is taken, between two steps."""

    def __init__(self, slots: int, layers: AdapterLayers) -> None:
        self._slots = SlotLru(slots)
        self._layers = layers
        self.loads = 0

    @property
    def used(self) -> int:
        """Slots whose adapter a running sequence needs."""
        return self._slots.pinned

    def can_acquire(self, adapter: AdapterWeights) -> bool:
        """Whether the adapter is in a slot, or there is one for it."""
        return self._slots.can_acquire(adapter.digest)

    def acquire(self, adapter: AdapterWeights) -> int | None:
        """Hold the adapter's slot once more, or fill an idle one; None while all are in use.

        Raises what `AdapterLayers.load` raises; the slot is empty then.
        """
        placement = self._slots.acquire(adapter.digest)
        if placement is None:
            return None
        if placement.needs_load:
            try:
                self._layers.load(placement.slot, adapter)
            except BaseException:
                self._slots.forget(placement.slot)
                raise
            self.loads += 1
        return placement.slot

    def release(self, slot: int) -> None:
        """Undo one `acquire`."""
        self._slots.release(slot)
