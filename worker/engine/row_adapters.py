"""Which adapters work on which rows of a step, and how strongly, as the layers take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aril.kernels.backend import uses_triton
from aril.kernels.sgmv import PlanLayout, SgmvMode, block_height, plan_on
from aril.worker.engine.sequence import BACKBONE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from aril.kernels.sgmv import SgmvPlan
    from aril.worker.engine.config import EngineConfig

Applied = tuple[tuple[int, ...], tuple[float, ...]]
"""The slots of the adapters that work on one row, none on the backbone, and a scale for each."""

NOTHING: Final[Applied] = ((), ())


@dataclass(frozen=True, slots=True)
class Planner:
    """Turns what works on a step's rows into plans: on the host, then on a device."""

    slots: int
    mode: SgmvMode
    device: torch.device
    tables: bool  # whether the plans' tables of blocks are wanted: kernels in Triton read them

    @classmethod
    def of(cls, config: EngineConfig, device: torch.device) -> Planner:
        """Plan for an engine's steps."""
        mode = SgmvMode.INVARIANT if config.invariant else SgmvMode.FAST
        return cls(config.slots, mode, device, uses_triton(config.backend, device))

    def lay_out(self, applied: Sequence[Applied]) -> list[PlanLayout]:
        """Return a plan for the rows' first adapters, one for their second ones, and so on.

        No plan where no row has an adapter. A row's adapters are added in its own order, whatever
        runs beside it.
        """
        depth = max((len(each) for each, _ in applied), default=0)
        return [self.lay_out_layer(applied, layer) for layer in range(depth)]

    def lay_out_layer(
        self, applied: Sequence[Applied], layer: int, *, static: bool = False
    ) -> PlanLayout:
        """Return a plan for the rows' layer-th adapters; see `PlanLayout` for `static`."""
        ids = np.array(
            [slots[layer] if layer < len(slots) else BACKBONE for slots, _ in applied], np.int32
        )
        scales = [scales[layer] if layer < len(scales) else 1.0 for _, scales in applied]
        adapters = None if static else len(np.unique(ids[ids != BACKBONE]))
        height = block_height(self.mode, rows=len(ids), adapters=adapters)
        return PlanLayout(
            ids,
            None if all(each == 1 for each in scales) else np.array(scales, np.float32),
            slots=self.slots,
            block_m=height if self.tables else None,
            static=static,
        )

    def on(self, layouts: Sequence[PlanLayout], there: Iterator[Tensor]) -> tuple[SgmvPlan, ...]:
        """Return the plans, of their arrays that are on the device, the next of `there`."""
        return tuple(plan_on(each, there, mode=self.mode, device=self.device) for each in layouts)


def arrays_of(layouts: Sequence[PlanLayout]) -> list[NDArray[Any]]:
    """Return what a device is to be told of plans."""
    return [array for each in layouts for array in each.arrays]
