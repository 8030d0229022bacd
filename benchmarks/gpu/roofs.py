"""The two ceilings of the device in hand, measured: bytes a second, and the least time of a launch.

    python -m benchmarks.gpu    # writes gpu_roofs.csv, before the other tables

A datasheet's figures are never reached; shares of a roof are only fair with one that was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aril.kernels.sgmv.cost import Roofs
from benchmarks.gpu.timing import IN_A_GRAPH, quiet, times

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.gpu.results import Results
    from benchmarks.record import Row

QUESTION = "gpu_roofs"
SMALLEST = "one addition"


def roofs_of(rows: Iterable[Row]) -> Roofs | None:
    """Read the roofs out of one run's figures; None where one is missing."""
    middle = {row.provider: row.p50 for row in rows}
    if not {"copy", "triad", "product", "smallest kernel"} <= middle.keys():
        return None
    return Roofs(
        memory=max(middle["copy"], middle["triad"]) * 1e9,
        products=middle["product"] * 1e12,
        launch=middle["smallest kernel"] / 1e6,
    )


def measure_roofs(results: Results, *, repetitions: int) -> Roofs:
    """Copy, triad and a large product, in graphs; an addition of one number for the launch.

    A run that goes on with an earlier one takes that one's: all shares of a table have one roof.
    """
    return roofs_of(results.own(QUESTION)) or _measured(results, repetitions)


def _measured(results: Results, repetitions: int) -> Roofs:
    device = results.device
    on_gpu = device.type == "cuda"
    count = 1 << 28 if on_gpu else 1 << 16
    side = 8192 if on_gpu else 64
    dtype = torch.bfloat16
    left, right, out = (torch.randn(count, device=device, dtype=dtype) for _ in range(3))
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty(side, side, device=device, dtype=dtype)
    one = torch.zeros(1, device=device)
    calls = {
        "copy": [quiet(lambda: out.copy_(left))],
        "triad": [quiet(lambda: torch.add(left, right, alpha=2, out=out))],
        "product": [quiet(lambda: torch.mm(a, b, out=product))],
        "smallest kernel": [quiet(lambda: one.add_(1))],
    }
    taken = times(calls, device, repetitions=repetitions, at_once=2)
    size = count * dtype.itemsize
    results.begin(QUESTION, str(dtype), count)
    results.begin(QUESTION, SMALLEST, 1)
    work = {"copy": 2 * size, "triad": 3 * size, "product": 2 * side**3}
    for name, amount in work.items():
        unit = "TFLOP/s" if name == "product" else "GB/s"
        scale = 1e6 if name == "product" else 1e3
        rates = [amount / microseconds / scale for microseconds in taken[name]]
        results.add(QUESTION, name, "rate", count, rates, unit=unit, config=str(dtype))
    results.add(
        QUESTION, "smallest kernel", IN_A_GRAPH, 1, taken["smallest kernel"],
        unit="us", config=SMALLEST,
    )  # fmt: skip
    results.write()
    found = roofs_of(results.own(QUESTION))
    assert found is not None  # noqa: S101 - they were just added
    return found
