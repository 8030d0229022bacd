"""Which adapters work on which rows of a step, and how strongly, as the layers take it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from kernels.sgmv import SgmvMode, make_plan
from worker.engine.sequence import BACKBONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kernels.sgmv import SgmvPlan

Applied = tuple[tuple[int, ...], tuple[float, ...]]
"""The slots of the adapters that work on one row, none on the backbone, and a scale for each."""

NOTHING: Final[Applied] = ((), ())


def make_plans(
    applied: Sequence[Applied], *, slots: int, invariant: bool, device: torch.device
) -> tuple[SgmvPlan, ...]:
    """Return a plan for the rows' first adapters, one for their second ones, and so on.

    No plan where no row has an adapter. A row's adapters are added in its own order, whatever runs
    beside it.
    """
    depth = max((len(each) for each, _ in applied), default=0)
    plans = []
    for layer in range(depth):
        ids, scales = layer_of(applied, layer)
        # From ids on the host: they are checked, and the grids fit the segments exactly.
        plan = make_plan(
            ids,
            slots=slots,
            row_scales=scales,
            mode=SgmvMode.INVARIANT if invariant else SgmvMode.FAST,
            device=device,
        )
        plans.append(plan)
    return tuple(plans)


def layer_of(applied: Sequence[Applied], layer: int) -> tuple[Tensor, Tensor | None]:
    """Return the slot of each row's layer-th adapter [rows] int32, and its scale; None: all 1."""
    ids = [slots[layer] if layer < len(slots) else BACKBONE for slots, _ in applied]
    scales = [scales[layer] if layer < len(scales) else 1.0 for _, scales in applied]
    own = None if all(each == 1 for each in scales) else torch.tensor(scales, dtype=torch.float32)
    return torch.tensor(ids, dtype=torch.int32), own
