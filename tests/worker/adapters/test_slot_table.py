"""Device slots: who is where, who may be evicted, and that nobody in use ever is."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from worker.adapters import Placement, SlotTable


def placed(table: SlotTable, digest: str) -> Placement:
    """Acquire, where a slot is known to be free."""
    placement = table.acquire(digest)
    assert placement is not None
    return placement


def test_jobs_of_one_adapter_share_its_slot() -> None:
    """Only the first needs a load."""
    table = SlotTable(2)
    first, second = placed(table, "a"), placed(table, "a")
    assert (first.needs_load, second.needs_load) == (True, False)
    assert first.slot == second.slot
    assert table.pins(first.slot) == 2


def test_an_idle_adapter_is_found_again() -> None:
    """After its last job an adapter stays until its slot is needed."""
    table = SlotTable(2)
    slot = placed(table, "a").slot
    table.release(slot)
    assert table.resident == {"a": slot}
    assert placed(table, "a") == Placement(slot, needs_load=False)


def test_empty_slots_are_taken_before_idle_adapters_are_evicted() -> None:
    """Nothing is thrown away while there is room."""
    table = SlotTable(2)
    table.release(placed(table, "a").slot)
    placed(table, "b")
    assert set(table.resident) == {"a", "b"}


def test_the_adapter_idle_for_longest_gives_way() -> None:
    """The order is that of the last release, not of the first load."""
    table = SlotTable(3)
    slots = {digest: placed(table, digest).slot for digest in "abc"}
    for digest in "bca":
        table.release(slots[digest])
    table.release(placed(table, "b").slot)  # used again: now the youngest
    assert placed(table, "d") == Placement(slots["c"], needs_load=True)
    assert placed(table, "e") == Placement(slots["a"], needs_load=True)
    assert set(table.resident) == {"b", "d", "e"}


def test_slots_in_use_are_never_evicted() -> None:
    """With every slot in use a stranger has to wait, a resident one does not."""
    table = SlotTable(1)
    slot = placed(table, "a").slot
    assert table.acquire("b") is None
    assert not table.can_acquire("b")
    assert table.can_acquire("a")
    table.release(slot)
    assert table.can_acquire("b")
    assert placed(table, "b").needs_load


def test_a_failed_load_leaves_an_empty_slot() -> None:
    """The adapter is not taken for resident, and the slot is free for others."""
    table = SlotTable(1)
    table.forget(placed(table, "a").slot)
    assert table.resident == {}
    assert placed(table, "a").needs_load


def test_a_slot_that_others_use_cannot_be_forgotten() -> None:
    """Rows that run on it would read another adapter's weights."""
    table = SlotTable(1)
    slot = placed(table, "a").slot
    placed(table, "a")
    with pytest.raises(ValueError, match="in use"):
        table.forget(slot)


def test_a_pin_cannot_be_released_twice() -> None:
    """An extra release is a mistake of the caller and says so at once."""
    table = SlotTable(1)
    slot = placed(table, "a").slot
    table.release(slot)
    with pytest.raises(KeyError):
        table.release(slot)


def test_a_table_without_slots() -> None:
    """It could never place anything."""
    with pytest.raises(ValueError, match="at least 1"):
        SlotTable(0)


class SlotMachine(RuleBasedStateMachine):
    """Drives a table at random beside a plain list of what each slot was loaded with."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SlotTable(3)
        self.loaded: dict[int, str] = {}
        self.running: list[tuple[int, str]] = []
        self.released: list[str] = []  # oldest first

    @rule(digest=st.sampled_from("abcdef"))
    def acquire(self, digest: str) -> None:
        """Start a job; the model says whether there is room and who gives way."""
        in_use = {slot for slot, _ in self.running}
        placement = self.table.acquire(digest)
        if placement is None:
            assert len(in_use) == 3
            assert digest not in self.loaded.values()
            return
        if placement.needs_load:
            assert digest not in self.loaded.values()
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
        self.table.release(slot)
        if all(other != slot for other, _ in self.running):
            self.released.append(digest)

    @precondition(lambda self: self.running)
    @rule()
    def fail(self) -> None:
        """Lose the load of the last job, if it is alone in its slot."""
        slot, _ = self.running[-1]
        if [other for other, _ in self.running].count(slot) == 1:
            self.running.pop()
            self.table.forget(slot)
            del self.loaded[slot]

    @invariant()
    def table_agrees(self) -> None:
        """Compare what is loaded where, and how often each slot is in use."""
        assert self.table.resident == {digest: slot for slot, digest in self.loaded.items()}
        pins = Counter(slot for slot, _ in self.running)
        assert {slot: self.table.pins(slot) for slot in range(3)} == {s: pins[s] for s in range(3)}
        assert self.table.pinned == len(pins)
        assert len(self.table) == 3


TestSlotMachine = SlotMachine.TestCase
TestSlotMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
