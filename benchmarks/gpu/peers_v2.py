"""SGLang's newest LoRA backend as a provider: `triton_v2`, a table of plans over few kernels."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.loading import PEERS, load_sglang, loaded
from benchmarks.gpu.peers import Sglang, SglangChunked, SglangTriton, Vllm, slice_offsets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.gpu.problem import Problem
    from benchmarks.gpu.providers import Provider


class SglangV2(Sglang):
    """SGLang's newest backend `triton_v2`: a table of plans over grouped and per-row kernels.

    Its overlap with the base product on a second stream is left out: what is timed is the operator.
    """

    name = "SGLang triton_v2"

    def plan(self, problem: Problem) -> tuple[Any, Any, dict[str, Any]]:
        """Look the shape up in its own table for Hopper, and build the routes by that."""
        case = problem.case
        spec = v2_spec(
            self._ops.v2_plans,
            decode=case.decode,
            rows=len(problem.row_slots),
            max_rank=problem.max_rank,
            in_features=case.layer.in_features,
            out_features=sum(problem.widths),
        )
        rows = problem.row_slots
        block = spec["block_size"]
        pairs: list[int] = []
        owners: list[int] = []
        for slot in sorted({*rows.tolist()}):
            members = (rows == slot).nonzero().flatten().tolist()
            padded = -(-len(members) // block) * block
            pairs += members + [len(rows)] * (padded - len(members))
            owners += [slot] * (padded // block)
        put = partial(torch.tensor, dtype=torch.int32, device=problem.device)
        common = {
            "token_slots": rows.to(problem.device),
            "group_ids": None,
            "groups_per_slot": 1,
            "max_loras": problem.slots,
        }
        kinds = self._ops.v2_route.RouteViewKind
        aligned = self._ops.v2_route.RouteView(
            view=kinds.ALIGNED,
            block_size=block,
            maybe_sorted_pair_ids=put(pairs),
            maybe_block_bucket_ids=put(owners),
            maybe_num_pairs_post_padded=put([len(pairs)]),
            **common,
        )
        raw = self._ops.v2_route.RouteView(
            view=kinds.RAW,
            block_size=1,
            maybe_sorted_pair_ids=None,
            maybe_block_bucket_ids=None,
            maybe_num_pairs_post_padded=None,
            **common,
        )
        return aligned, raw, spec

    def bind(self, problem: Problem, plan: tuple[Any, Any, dict[str, Any]]) -> Callable[[], None]:
        """Keep the buffers that its workspace would keep."""
        aligned, raw, spec = plan
        a, b, ranks, scales = self.weights(problem)
        tiles_a, tiles_b = spec["a_tiles"], spec["b_tiles"]
        rows, width = len(problem.x), a.shape[1]
        splits = int(tiles_a.get("SPLIT_K", 1))
        as_planes = splits > 1 and tiles_a.get("SPLIT_MODE", "serial") == "planes"
        every_slot = spec["a_family"] == "all_slots"
        device, dtype = problem.device, problem.x.dtype
        bridge = torch.zeros(rows, width, dtype=dtype, device=device)
        partial_sums = torch.zeros(splits, rows, width, dtype=torch.float32, device=device)
        blocks = len(aligned.sorted_pair_ids) // aligned.block_size
        tiles = blocks * -(-width // int(tiles_a["BLOCK_SIZE_N"]))
        counters = torch.zeros(tiles, dtype=torch.int32, device=device)
        all_planes = len(a) * width if every_slot else 0
        flat = torch.empty(rows, all_planes, dtype=dtype, device=device)
        expand = partial(
            self._ops.v2_b.grouped_lora_b
            if spec["b_family"] == "grouped"
            else self._ops.v2_b.per_row_lora_b,
            geometry=_geometry(self._ops.v2_b, problem.widths, tiles_b["BLOCK_SIZE_N"], device),
            config=tiles_b,
            add_inplace=True,
            zero_sentinel=False,
            lora_ranks=ranks,
            scalings=scales,
        )
        route = aligned if spec["b_family"] == "grouped" else raw

        def call() -> None:
            if every_slot:
                torch.matmul(problem.x, a.reshape(-1, a.shape[2]).t(), out=flat)
                planes = flat.view(rows, len(a), width).transpose(0, 1)
                expand(planes, b, problem.y, route, slot_planes=True)
                return
            self._ops.v2_a.grouped_lora_a(
                problem.x,
                a,
                bridge,
                aligned,
                config=tiles_a,
                pair_input=True,
                lora_ranks=ranks,
                stack=len(problem.widths),
                partial=partial_sums,
                counters=counters,
            )
            if as_planes:
                expand(partial_sums, b, problem.y, route, planes=splits)
            else:
                expand(bridge, b, problem.y, route)

        return call


def v2_spec(
    table: Path, *, decode: bool, rows: int, max_rank: int, in_features: int, out_features: int
) -> dict[str, Any]:
    """Take the first row of the table that fits, as its selection does; else the defaults."""
    phase = "decode" if decode else "prefill"
    bounds = [
        ("max_tokens", rows, 1),
        ("max_rank", max_rank, 1),
        ("min_in_features", in_features, -1),
        ("max_in_features", in_features, 1),
        ("min_out_features", out_features, -1),
        ("max_out_features", out_features, 1),
    ]
    for row in json.loads(table.read_text())["rows"]:
        kinds = row.get("kinds")
        if row.get("phase", phase) != phase or (kinds and "linear" not in kinds):
            continue
        if all(name not in row or sign * (size - row[name]) <= 0 for name, size, sign in bounds):
            found: dict[str, Any] = row["spec"]
            return found
    tiles = {"BLOCK_SIZE_K": 128, "GROUP_SIZE_M": 8, "num_warps": 4, "num_stages": 3}
    return {
        "a_family": "grouped",
        "b_family": "grouped",
        "block_size": 16 if decode else 64,
        "a_tiles": {**tiles, "BLOCK_SIZE_N": 64, **({"SPLIT_K": 4} if decode else {})},
        "b_tiles": {
            **tiles,
            "BLOCK_SIZE_N": 128 if decode else 64,
            "BLOCK_SIZE_K": 64,
            "num_warps": 4 if decode else 8,
            "num_stages": 2,
        },
    }


def _geometry(module: Any, widths: Sequence[int], tile: int, device: torch.device) -> Any:
    """Fill its description of slices by hand: its own builder insists on a CUDA device."""
    offsets = slice_offsets(widths, device)
    uniform = widths[0] if len(set(widths)) == 1 else 0
    evenly = offsets[:-1].tolist() == [i * widths[0] for i in range(len(widths))]
    return module.SliceGeometry(
        slice_offsets=offsets,
        out_offsets=offsets[:-1].clone(),
        num_slices=len(widths),
        num_column_tiles=sum(-(-width // tile) for width in widths),
        uniform_width=uniform,
        out_stride=widths[0] if evenly else 0,
        full_tiles=all(width % tile == 0 for width in widths),
        block_size_n=tile,
    )


def peer_providers(root: Path = PEERS) -> list[Provider]:
    """Return all five peers, or none with one line that says so; who doesn't load is left out."""
    if not (root / "vllm").is_dir() or not (root / "sglang").is_dir():
        print(f"no peers in {root}: their rows are left out")
        return []

    def vllm(*, invariant: bool) -> list[Provider]:
        return [Vllm(root, batch_invariant=invariant)]

    def sglang() -> list[Provider]:
        ops = load_sglang(root)
        return [SglangTriton(ops), SglangChunked(ops), SglangV2(ops)]

    return [
        *loaded("vLLM", lambda: vllm(invariant=False)),
        *loaded("vLLM batch-invariant", lambda: vllm(invariant=True)),
        *loaded("SGLang", sglang),
    ]
