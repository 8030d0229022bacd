"""The gains of DoRA's adapters, computed before a slot is filled and kept with their modules."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from aril.kernels.sgmv import LoraPair
from aril.schemas import ErrorCode, JobError
from aril.worker.engine.dora import NoDirectionError, gain_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from aril.worker.adapters import AdapterWeights, LoraModule
    from aril.worker.engine.groups import LinearGroup


class DoraGains:
    """What `gain_of` gave, as long as the host keeps the adapter. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gains: WeakKeyDictionary[LoraModule, Tensor] = WeakKeyDictionary()

    def prepare(self, adapter: AdapterWeights, groups: Iterable[LinearGroup]) -> None:
        """Compute what is missing of an adapter's gains, from the groups' weights.

        Raises JobError `adapter_invalid` for a changed weight that has a row of zeros.
        """
        for group in groups:
            modules = [adapter.modules.get(name) for name in group.names]
            if all(module is None or self._known(module) for module in modules):
                continue
            weights = group.dense_weights()
            for name, module, weight in zip(group.names, modules, weights, strict=True):
                if module is not None and not self._known(module):
                    try:
                        gain = gain_of(weight, module)
                    except NoDirectionError as error:
                        raise JobError(ErrorCode.ADAPTER_INVALID, f"{name}: {error}") from None
                    with self._lock:
                        self._gains[module] = gain

    def pair(self, module: LoraModule, there: LoraModule) -> LoraPair:
        """Return what a slot takes of a module, from `there`: itself, or a copy on the device."""
        with self._lock:
            gain = self._gains.get(module)
        return LoraPair(there.a, there.b, there.scaling, gain, there.bias, there.scaled_bias)

    def _known(self, module: LoraModule) -> bool:
        """Whether nothing is left to compute: the module has its gain, or needs none."""
        if module.magnitude is None:
            return True
        with self._lock:
            return module in self._gains
