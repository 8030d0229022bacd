"""Adapters on their way into the device: the table of slots, and the copy when one is filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.adapters import SlotTable

if TYPE_CHECKING:
    from worker.adapters import AdapterWeights
    from worker.engine.lora import AdapterLayers


class AdapterSlots:
    """The scheduler's pool of slots. Weights are copied when a slot is taken, between two steps."""

    def __init__(self, slots: int, layers: AdapterLayers) -> None:
        self._table = SlotTable(slots)
        self._layers = layers
        self.loads = 0

    @property
    def used(self) -> int:
        """Slots whose adapter a running sequence needs."""
        return self._table.pinned

    def acquire(self, adapter: AdapterWeights) -> int | None:
        """Hold the adapter's slot once more, or fill an idle one; None while all are in use."""
        placement = self._table.acquire(adapter.digest)
        if placement is None:
            return None
        if placement.needs_load:
            try:
                self._layers.load(placement.slot, adapter)
            except BaseException:
                self._table.forget(placement.slot)
                raise
            self.loads += 1
        return placement.slot

    def release(self, slot: int) -> None:
        """Undo one `acquire`."""
        self._table.release(slot)
