"""The table of bytes in kernels/sgmv/README.md is counted, not typed."""

from __future__ import annotations

from pathlib import Path

import aril.kernels.sgmv
from aril.kernels.sgmv.cost import sgmv_cost
from benchmarks.gpu.workloads import Workload, segment_sizes
from benchmarks.plots.byte_table import byte_table


def test_the_table_has_the_workloads_of_the_benchmarks() -> None:
    """The README's table counts the same batches as the benchmarks time."""
    lines = {line.split("|")[1].strip(): line for line in byte_table().splitlines()[2:]}
    assert list(lines) == [str(workload) for workload in Workload]
    for workload in Workload:
        sizes = segment_sizes(workload, 64)
        ranks = {slot: [16] for slot in range(len(sizes))}
        cost = sgmv_cost(dict(enumerate(sizes)), ranks, in_features=4096, widths=[4096])
        assert f"| {workload} | {len(sizes)} | {cost.bytes / 1e6:.2f} |" in lines[str(workload)]


def test_the_readme_shows_the_computed_table() -> None:
    """The table of the README is what the byte model computes, line by line."""
    readme = Path(aril.kernels.sgmv.__file__).with_name("README.md").read_text(encoding="utf-8")
    assert byte_table() in readme
