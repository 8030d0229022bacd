"""Tenants' LoRA adapters: from a folder on disk, through host memory, to slots on the device."""

from worker.adapters.cache import AdapterCache
from worker.adapters.slot_lru import Placement, SlotLru
from worker.adapters.store import AdapterRef, AdapterStore
from worker.adapters.weights import AdapterWeights, LoraModule

__all__ = [
    "AdapterCache",
    "AdapterRef",
    "AdapterStore",
    "AdapterWeights",
    "LoraModule",
    "Placement",
    "SlotLru",
]
