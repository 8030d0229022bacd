"""Device slots: who is where, who may be evicted, and that nobody in use ever is."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aril.worker.adapters import Placement, SlotLru


def placed(slots: SlotLru, digest: str) -> Placement:
    """Acquire, where a slot is known to be free."""
    placement = slots.acquire(digest)
    assert placement is not None
    return placement


def test_jobs_of_one_adapter_share_its_slot() -> None:
    """Only the first needs a load."""
    slots = SlotLru(2)
    first, second = placed(slots, "a"), placed(slots, "a")
    assert (first.needs_load, second.needs_load) == (True, False)
    assert first.slot == second.slot
    slots.release(first.slot)
    assert slots.pinned == 1  # in use by the other
    slots.release(first.slot)
    assert slots.pinned == 0


def test_an_idle_adapter_is_found_again() -> None:
    """After its last job an adapter stays until its slot is needed."""
    slots = SlotLru(2)
    slot = placed(slots, "a").slot
    slots.release(slot)
    assert placed(slots, "a") == Placement(slot, needs_load=False)


def test_empty_slots_are_taken_before_idle_adapters_are_evicted() -> None:
    """Nothing is thrown away while there is room."""
    slots = SlotLru(2)
    slots.release(placed(slots, "a").slot)
    placed(slots, "b")
    assert not placed(slots, "a").needs_load


def test_the_adapter_idle_for_longest_gives_way() -> None:
    """The order is that of the last release, not of the first load."""
    slots = SlotLru(3)
    of = {digest: placed(slots, digest).slot for digest in "abc"}
    for digest in "bca":
        slots.release(of[digest])
    slots.release(placed(slots, "b").slot)  # used again: now the youngest
    assert placed(slots, "d") == Placement(of["c"], needs_load=True)
    assert placed(slots, "e") == Placement(of["a"], needs_load=True)
    assert placed(slots, "b") == Placement(of["b"], needs_load=False)


def test_slots_in_use_are_never_evicted() -> None:
    """With every slot in use a stranger has to wait, a resident one does not."""
    slots = SlotLru(1)
    slot = placed(slots, "a").slot
    assert slots.acquire("b") is None
    assert placed(slots, "a") == Placement(slot, needs_load=False)
    slots.release(slot)
    assert slots.acquire("b") is None
    slots.release(slot)
    assert placed(slots, "b") == Placement(slot, needs_load=True)


def test_a_failed_load_leaves_an_empty_slot() -> None:
    """The adapter is not taken for resident, and the slot is free for others."""
    slots = SlotLru(1)
    slots.forget(placed(slots, "a").slot)
    assert slots.pinned == 0
    assert placed(slots, "a").needs_load


def test_a_slot_that_others_use_cannot_be_forgotten() -> None:
    """Rows that run on it would read another adapter's weights."""
    slots = SlotLru(1)
    slot = placed(slots, "a").slot
    placed(slots, "a")
    with pytest.raises(ValueError, match="in use"):
        slots.forget(slot)


def test_a_pin_cannot_be_released_twice() -> None:
    """An extra release is a mistake of the caller and says so at once."""
    slots = SlotLru(1)
    slot = placed(slots, "a").slot
    slots.release(slot)
    with pytest.raises(KeyError):
        slots.release(slot)


def test_a_device_without_slots() -> None:
    """It could never place anything."""
    with pytest.raises(ValueError, match="at least 1"):
        SlotLru(0)


class SlotMachine(RuleBasedStateMachine):
    """Drives slots at random beside a plain list of what each slot was loaded with."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = SlotLru(3)
        self.loaded: dict[int, str] = {}
        self.running: list[tuple[int, str]] = []
        self.released: list[str] = []  # oldest first

    @rule(digest=st.sampled_from("abcdef"))
    def acquire(self, digest: str) -> None:
        """Start a job; the model says whether there is room and who gives way."""
        in_use = {slot for slot, _ in self.running}
        placement = self.slots.acquire(digest)
        if placement is None:
            assert len(in_use) == 3
            assert digest not in self.loaded.values()
            return
        assert placement.needs_load == (digest not in self.loaded.values())
        if placement.needs_load:
            assert placement.slot not in in_use
            evicted = self.loaded.get(placement.slot)
            if evicted is not None:
                assert len(self.loaded) == 3
                assert evicted == self.released[0]
                self.released.remove(evicted)
            self.loaded[placement.slot] = digest
        assert self.loaded[placement.slot] == digest
        if digest in self.released:
            self.released.remove(digest)
        self.running.append((placement.slot, digest))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """End a job."""
        slot, digest = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.slots.release(slot)
        if all(other != slot for other, _ in self.running):
            self.released.append(digest)

    @precondition(lambda self: self.running)
    @rule()
    def fail(self) -> None:
        """Lose the load of the last job, if it is alone in its slot."""
        slot, _ = self.running[-1]
        if [other for other, _ in self.running].count(slot) == 1:
            self.running.pop()
            self.slots.forget(slot)
            del self.loaded[slot]

    @invariant()
    def counts_agree(self) -> None:
        """Compare how many slots are in use; what is loaded where shows when it is asked for."""
        assert self.slots.pinned == len({slot for slot, _ in self.running})


TestSlotMachine = SlotMachine.TestCase
TestSlotMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_several_at_once() -> None:
    """Idle slots of the adapters that are asked for are no room for the others."""
    slots = SlotLru(3)
    for digest in "abc":
        slots.release(placed(slots, digest).slot)
    assert slots.can_acquire("abd")
    assert not slots.can_acquire("abcd")
    assert slots.can_acquire("aab")
    placed(slots, "c")
    assert not slots.can_acquire("abd")
    assert slots.can_acquire("abc")
    assert slots.can_acquire("ad")
