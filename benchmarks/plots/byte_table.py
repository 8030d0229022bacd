"""The table of bytes in kernels/sgmv/README.md: what SGMV and Gather-BMM have to move."""

from __future__ import annotations

from aril.kernels.sgmv.cost import gather_bmm_cost, sgmv_cost
from benchmarks.gpu.workloads import Workload, segment_sizes


def byte_table(rows: int = 64, rank: int = 16, features: int = 4096) -> str:
    """Bytes of one batch whose rows share adapters in each of the four ways, as Markdown."""
    lines = [
        "| workload | adapters | SGMV, MB | flops/byte | Gather-BMM, MB | times | cached | times |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for workload in Workload:
        segments = dict(enumerate(segment_sizes(workload, rows)))
        ranks = {slot: [rank] for slot in segments}
        ours = sgmv_cost(segments, ranks, in_features=features, widths=[features])
        plain, cached = (
            gather_bmm_cost(segments, ranks, in_features=features, widths=[features], cached=kept)
            for kept in (False, True)
        )
        lines.append(
            f"| {workload} | {len(segments)} | {ours.bytes / 1e6:.2f} | {ours.intensity:.1f} "
            f"| {plain.bytes / 1e6:.1f} | {plain.bytes / ours.bytes:.1f} "
            f"| {cached.bytes / 1e6:.1f} | {cached.bytes / ours.bytes:.1f} |"
        )
    return "\n".join(lines)
