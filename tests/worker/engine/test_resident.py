"""Adapters' slots on the device: all that one answer needs, or none."""

from __future__ import annotations

from typing import Any, cast

import pytest

from aril.worker.adapters import AdapterWeights
from aril.worker.engine.resident import ResidentAdapters


def adapter(name: str) -> AdapterWeights:
    """Return one without weights."""
    return AdapterWeights(name=name, digest=name, rank=1, modules={})


class Layers:
    """Takes note of what is loaded where; an adapter named `broken` cannot be."""

    def __init__(self) -> None:
        self.loaded: dict[int, str] = {}

    def load(self, slot: int, weights: AdapterWeights) -> None:
        """Fill a slot."""
        if weights.name == "broken":
            raise RuntimeError("broken")
        self.loaded[slot] = weights.name


def pool(slots: int) -> tuple[ResidentAdapters, Layers]:
    """Return an empty pool."""
    layers = Layers()
    return ResidentAdapters(slots, cast("Any", layers)), layers


def test_a_mixture_holds_a_slot_for_each() -> None:
    """What is resident stays where it is, and is not pushed out for its own mixture."""
    slots, layers = pool(2)
    a, b = adapter("a"), adapter("b")
    (only,) = slots.acquire([a]) or ()
    slots.release([only])
    held = slots.acquire([b, a])
    assert held is not None
    assert (layers.loaded[held[0]], layers.loaded[held[1]]) == ("b", "a")
    assert held[1] == only
    assert (slots.used, slots.loads) == (2, 2)
    assert slots.acquire([adapter("c")]) is None
    slots.release(held)
    assert slots.used == 0


def test_a_part_that_cannot_be_loaded_holds_nothing() -> None:
    """Whatever came before it is let go, and stays of use."""
    slots, layers = pool(3)
    with pytest.raises(RuntimeError, match="broken"):
        slots.acquire([adapter("a"), adapter("broken"), adapter("b")])
    assert slots.used == 0
    assert slots.acquire([adapter("a"), adapter("b"), adapter("c")]) is not None
    assert sorted(layers.loaded.values()) == ["a", "b", "c"]
    assert slots.loads == 3


def test_too_many_at_once_change_nothing() -> None:
    """No slot is filled for a mixture that has to wait."""
    slots, layers = pool(2)
    held = slots.acquire([adapter("a")])
    assert held is not None
    assert not slots.can_acquire([adapter("b"), adapter("c")])
    assert slots.acquire([adapter("b"), adapter("c")]) is None
    assert list(layers.loaded.values()) == ["a"]
    assert slots.acquire([adapter("a"), adapter("a")]) == held * 2
