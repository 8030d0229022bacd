"""The adapters' side of the model: every linear with slots for LoRA weights beside it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from kernels.sgmv import GroupShape, LoraPair, Scratch, make_slot_weights
from schemas import ErrorCode, JobError
from worker.engine.dora import NoDirectionError, gain_of
from worker.engine.groups import LinearGroup, StepState, find_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kernels.sgmv import SgmvPlan, SlotWeights
    from worker.adapters import AdapterWeights, LoraModule
    from worker.engine.config import EngineConfig
    from worker.engine.model import Backbone


class AdapterLayers:
    """Replaces the backbone's linears by groups that add each row's adapter.

    Call `begin` before each forward pass; `load` and `clear` only between passes. `prepare` may be
    called from any thread.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: EngineConfig,
        groups: Sequence[Sequence[str]] | None = None,
    ) -> None:
        self._backbone = backbone
        self._scratch = Scratch()  # one for all groups: they take turns
        self._config = config
        self._body = StepState(invariant=config.invariant)
        self._output = StepState(invariant=config.invariant)
        self.groups = tuple(
            self._install(names) for names in (find_groups(backbone) if groups is None else groups)
        )
        self._shapes = {
            name: (width, group.in_features)
            for group in self.groups
            for name, width in zip(group.names, group.widths, strict=True)
        }
        self._lock = threading.Lock()
        # DoRA's gains are kept as long as the host keeps the adapter.
        self._gains: WeakKeyDictionary[LoraModule, Tensor] = WeakKeyDictionary()

    @property
    def output_adapted(self) -> bool:
        """Whether an adapter that changes the output module has ever been loaded."""
        return any(
            group.weights is not None
            for group in self.groups
            if group.names == (self._backbone.output_module,)
        )

    def pack(self) -> None:
        """Lay the base weights out for speed."""
        for group in self.groups:
            group.pack()

    def begin(self, plan: SgmvPlan | None, output_plan: SgmvPlan | None) -> None:
        """Start a step: the adapters of all its rows, and of those whose logits are computed."""
        self._body.number += 1
        self._output.number += 1
        self._body.plan, self._output.plan = plan, output_plan

    def check(self, adapter: AdapterWeights) -> None:
        """Raise JobError `adapter_invalid` if the adapter does not fit this backbone."""
        for name, module in adapter.modules.items():
            shape = self._shapes.get(name)
            if shape is None:
                raise JobError(
                    ErrorCode.ADAPTER_INVALID,
                    f"the backbone has no linear {name!r} that adapters can change",
                )
            given = (module.b.shape[0], module.a.shape[1])
            if given != shape or module.a.shape[0] != module.b.shape[1]:
                raise JobError(
                    ErrorCode.ADAPTER_INVALID,
                    f"{name}: A {list(module.a.shape)} and B {list(module.b.shape)} do not fit "
                    f"a linear of {shape[1]} inputs and {shape[0]} outputs",
                )
            if module.magnitude is not None and module.magnitude.shape != shape[:1]:
                raise JobError(
                    ErrorCode.ADAPTER_INVALID,
                    f"{name}: a magnitude of {list(module.magnitude.shape)} does not fit "
                    f"{shape[0]} outputs",
                )
            if not 1 <= module.a.shape[0] <= self._config.max_rank:
                raise JobError(
                    ErrorCode.ADAPTER_INVALID,
                    f"{name}: rank not served here",
                    limit=self._config.max_rank,
                    given=module.a.shape[0],
                )

    def prepare(self, adapter: AdapterWeights) -> None:
        """Check an adapter, and compute what DoRA needs of the backbone's weights.

        The gains are remembered with the adapter's modules, so that `load` only copies. Raises
        JobError `adapter_invalid`, also for a changed weight that has a row of zeros.
        """
        self.check(adapter)
        for group in self.groups:
            modules = [adapter.modules.get(name) for name in group.names]
            if all(module is None or self._has_gain(module) for module in modules):
                continue
            weights = group.dense_weights()
            for name, module, weight in zip(group.names, modules, weights, strict=True):
                if module is not None and not self._has_gain(module):
                    try:
                        gain = gain_of(weight, module)
                    except NoDirectionError as error:
                        raise JobError(ErrorCode.ADAPTER_INVALID, f"{name}: {error}") from None
                    with self._lock:
                        self._gains[module] = gain

    def load(self, slot: int, adapter: AdapterWeights) -> None:
        """Put an adapter into a slot, in place of all that was there.

        Linears that the adapter leaves alone get rank 0. Raises JobError `adapter_invalid` before
        anything has changed.
        """
        self.prepare(adapter)
        for group in self.groups:
            pairs = [
                self._pair(module) if module else None
                for module in map(adapter.modules.get, group.names)
            ]
            if any(pairs):
                self._weights(group).load(slot, pairs)
            elif group.weights is not None:
                group.weights.clear(slot)

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        for group in self.groups:
            if group.weights is not None:
                group.weights.clear(slot)

    def _has_gain(self, module: LoraModule) -> bool:
        """Whether nothing is left to compute: the module has its gain, or needs none."""
        if module.magnitude is None:
            return True
        with self._lock:
            return module in self._gains

    def _pair(self, module: LoraModule) -> LoraPair:
        with self._lock:
            gain = self._gains.get(module)
        return LoraPair(module.a, module.b, module.scaling, gain)

    def _install(self, names: Sequence[str]) -> LinearGroup:
        model = self._backbone.model
        linears = [model.get_submodule(name) for name in names]
        output = tuple(names) == (self._backbone.output_module,)
        group = LinearGroup(names, linears, self._output if output else self._body)
        for name, member in zip(names, group.members, strict=True):
            model.set_submodule(name, member)
        if (
            not output
        ):  # few adapters change the output module, and its B is as wide as the vocabulary
            self._weights(group)
        return group

    def _weights(self, group: LinearGroup) -> SlotWeights:
        if group.weights is None:
            group.weights = make_slot_weights(
                GroupShape(group.in_features, group.widths, self._config.max_rank),
                self._config.slots,
                device=self._backbone.device,
                dtype=self._backbone.dtype,
                bias=group.bias,
                backend=self._config.backend,
                scratch=self._scratch,
            )
        return group.weights
