"""Flops and bytes of a case, by the one model of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.kernels.sgmv.cost import sgmv_cost

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from aril.kernels.sgmv.cost import Cost
    from benchmarks.gpu.workloads import Case


def cost_of(case: Case, count: Callable[..., Cost] = sgmv_cost, *, element_bytes: int = 2) -> Cost:
    """Count one call, of `sgmv_` or of another way that `aril.kernels.sgmv.cost` knows."""
    gains: dict[str, Any] = {"dora": case.dora} if case.dora else {}
    return count(
        case.segments,
        case.slice_ranks,
        in_features=case.layer.in_features,
        widths=case.layer.widths,
        element_bytes=element_bytes,
        **gains,
    )
