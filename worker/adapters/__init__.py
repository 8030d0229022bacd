"""Tenants' LoRA adapters: from a folder on disk, through host memory, to slots on the device."""

from aril.worker.adapters.cache import AdapterCache
from aril.worker.adapters.slot_lru import Placement, SlotLru
from aril.worker.adapters.store import AdapterRef, AdapterStore
from aril.worker.adapters.weights import AdapterWeights, LoraModule

__all__ = [
    "AdapterCache",
    "AdapterRef",
    "AdapterStore",
    "AdapterWeights",
    "LoraModule",
    "Placement",
    "SlotLru",
]
