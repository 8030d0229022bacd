"""What the device holds: adapters by slot, least recently used out first.

Bookkeeping only, no tensors, no clock: the engine copies the weights (worker/engine/resident.py).
For host memory see byte_lru.py.
"""

from collections import OrderedDict
from collections.abc import Collection
from typing import NamedTuple


class Placement(NamedTuple):
    """The slot that an adapter got, and whether its weights have yet to be copied there."""

    slot: int
    needs_load: bool


class SlotLru:
    """Slots hold adapters by digest. One in use is pinned; of the idle ones the oldest gives way.

    An idle adapter stays in its slot until the slot is needed, so that the next job finds it there.
    """

    def __init__(self, slots: int) -> None:
        """Start with slots 0 to `slots` - 1, all empty."""
        if slots < 1:
            raise ValueError(f"slots: at least 1, not {slots}")
        self._slot_of: dict[str, int] = {}
        self._digest_of: dict[int, str] = {}
        self._pins: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # resident, unpinned, oldest first
        self._empty = list(range(slots - 1, -1, -1))

    def acquire(self, digest: str) -> Placement | None:
        """Pin `digest` in a slot; None if every slot is in use by other adapters.

        Where a load is needed the caller copies the weights before anything else is asked here, or
        calls `forget`.
        """
        slot = self._slot_of.get(digest)
        if slot is not None:
            self._pins[slot] = self._pins.get(slot, 0) + 1
            self._idle.pop(slot, None)
            return Placement(slot, needs_load=False)
        slot = self._free_slot()
        if slot is None:
            return None
        self._slot_of[digest] = slot
        self._digest_of[slot] = digest
        self._pins[slot] = 1
        return Placement(slot, needs_load=True)

    def can_acquire(self, digests: Collection[str]) -> bool:
        """Whether there are slots for all of these at once; changes nothing.

        `acquire` gives them if those that are resident are asked for first.
        """
        wanted = set(digests)
        resident = wanted & self._slot_of.keys()
        spare = len(self._idle) - sum(self._slot_of[each] in self._idle for each in resident)
        return len(wanted) - len(resident) <= len(self._empty) + spare

    def __contains__(self, digest: str) -> bool:
        """Whether an adapter is in a slot."""
        return digest in self._slot_of

    def release(self, slot: int) -> None:
        """Take one pin off; the adapter stays resident, idle once the last pin is off."""
        pins = self._pins[slot]
        if pins > 1:
            self._pins[slot] = pins - 1
            return
        del self._pins[slot]
        self._idle[slot] = None

    def forget(self, slot: int) -> None:
        """Empty a slot whose load failed; its one pin goes with it."""
        if self._pins[slot] != 1:
            raise ValueError(f"slot {slot} is in use by others")
        del self._pins[slot]
        del self._slot_of[self._digest_of.pop(slot)]
        self._empty.append(slot)

    @property
    def digests(self) -> tuple[str, ...]:
        """What is in a slot, used or idle; from any thread."""
        return tuple(self._slot_of)

    @property
    def pinned(self) -> int:
        """How many slots are in use."""
        return len(self._pins)

    def _free_slot(self) -> int | None:
        if self._empty:
            return self._empty.pop()
        if not self._idle:
            return None
        slot, _ = self._idle.popitem(last=False)
        del self._slot_of[self._digest_of.pop(slot)]
        return slot
