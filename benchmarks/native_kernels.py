"""What a layer's small operations take on this CPU: machine code of ours beside torch's way.

    python -m benchmarks.native_kernels    # writes native_kernels.csv

One layer of SmolLM2-135M's shape, one thread, both ways in turns. The last two sizes of attention
and of LoRA are taken once by each of our own two ways: where they cross.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import silu

from aril.kernels import native
from aril.kernels.attention import make_host_plan, paged_attention
from aril.kernels.sgmv import GroupShape, LoraPair, make_plan, make_slot_weights
from benchmarks.record import Row, keep, ratios
from benchmarks.turns import in_turns, milliseconds, use_one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

QUESTION = "native_kernels"
REPETITIONS = 41
HEADS, KV_HEADS, DIM, PAGE = 9, 3, 64, 16
HIDDEN, INNER = 576, 1536
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Ways = dict[str, "Callable[[], object]"]


def attention(dtype: torch.dtype, seqs: int, new: int, context: int) -> Ways:
    """Attend `seqs` sequences of so many new tokens: SDPA, ours, and ours query by query."""
    pages = -(-context // PAGE)
    k_cache, v_cache = torch.randn(2, seqs * pages, PAGE, KV_HEADS, DIM).to(dtype)
    table = torch.randperm(seqs * pages).to(torch.int32).view(seqs, pages)
    cu_q = torch.arange(seqs + 1, dtype=torch.int32) * new
    lengths = torch.full((seqs,), context, dtype=torch.int32)
    q = torch.randn(seqs * new, HEADS, DIM).to(dtype)

    def way(backend: str, *, invariant: bool = False) -> Callable[[], Tensor]:
        plan = make_host_plan(
            table,
            cu_q,
            lengths,
            block_size=PAGE,
            dtype=dtype,
            invariant=invariant,
            backend=backend,
        )
        return lambda: paged_attention(
            q,
            k_cache,
            v_cache,
            table,
            cu_q,
            lengths,
            scale=DIM**-0.5,
            plan=plan,
            backend=backend,
            invariant=invariant,
        )

    ways: Ways = {"torch": way("torch"), "ours": way("native")}
    return ways if new == 1 else ways | {"ours, query by query": way("native", invariant=True)}


def lora(dtype: torch.dtype, rows: int, adapters: int) -> Ways:
    """Add rank-16 adapters to q, k and v: torch, ours, and ours without matrix products."""
    shape = GroupShape(HIDDEN, (HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM), 16)
    x, y = torch.randn(rows, HIDDEN).to(dtype), torch.zeros(rows, sum(shape.widths), dtype=dtype)
    ids = torch.arange(adapters, dtype=torch.int32).repeat_interleave(rows // adapters)

    def way(backend: str, mode: str = "fast") -> Callable[[], None]:
        weights = make_slot_weights(shape, adapters, dtype=dtype, backend=backend)
        for slot in range(adapters):
            pairs = [
                LoraPair(torch.randn(16, HIDDEN) / 24, torch.randn(width, 16) / 4, 0.1)
                for width in shape.widths
            ]
            weights.load(slot, pairs)
        plan = make_plan(ids, slots=adapters, mode=mode)
        return lambda: weights.add_(y, x, plan)

    ways: Ways = {"torch": way("torch"), "ours": way("native")}
    return ways if adapters > 1 else ways | {"ours, row by row": way("native", "invariant")}


def rows_between(dtype: torch.dtype, rows: int) -> Ways:
    """Do a layer's two norms, its rotation and its gate."""
    x, weight = torch.randn(rows, HIDDEN).to(dtype), torch.randn(HIDDEN).to(dtype)
    q, k = (torch.randn(rows, heads, DIM).to(dtype) for heads in (HEADS, KV_HEADS))
    cos, sin = torch.randn(2, rows, DIM).to(dtype)
    gates, up = torch.randn(rows, 2 * INNER).to(dtype).split(INNER, dim=1)

    def turned(heads: Tensor) -> Tensor:
        half = torch.cat([-heads[..., DIM // 2 :], heads[..., : DIM // 2]], -1)
        return heads * cos[:, None] + half * sin[:, None]

    def norm() -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)
        return weight * wide.to(dtype)

    def plain() -> None:
        norm(), norm(), turned(q), turned(k), silu(gates) * up

    def ours() -> None:
        for _ in range(2):
            native.rms_norm(x, weight, 1e-5)
        native.rotate(q, k, cos, sin)
        native.gate(gates, up)

    return {"torch": plain, "ours": ours}


CASES: dict[str, Callable[[torch.dtype], Ways]] = {
    "attention, 16 decodes at 56": lambda dtype: attention(dtype, 16, 1, 56),
    "attention, 16 decodes at 512": lambda dtype: attention(dtype, 16, 1, 512),
    "attention, a prompt of 512": lambda dtype: attention(dtype, 1, 512, 512),
    "attention, 9 more tokens at 512": lambda dtype: attention(dtype, 1, 9, 512),
    "attention, 16 more tokens at 512": lambda dtype: attention(dtype, 1, 16, 512),
    "LoRA of qkv, 16 rows of 4 adapters": lambda dtype: lora(dtype, 16, 4),
    "LoRA of qkv, 512 rows of 4 adapters": lambda dtype: lora(dtype, 512, 4),
    "LoRA of qkv, 33 rows of one adapter": lambda dtype: lora(dtype, 33, 1),
    "LoRA of qkv, 64 rows of one adapter": lambda dtype: lora(dtype, 64, 1),
    "norms, rotation, gate, 16 rows": lambda dtype: rows_between(dtype, 16),
    "norms, rotation, gate, 512 rows": lambda dtype: rows_between(dtype, 512),
}


def measure() -> Iterator[Row]:
    """Time each case, and say what torch's way takes of ours."""
    torch.manual_seed(0)
    for case, make in CASES.items():
        for name, dtype in DTYPES.items():
            work = make(dtype)
            taken = in_turns(
                {way: partial(milliseconds, call) for way, call in work.items()},
                REPETITIONS,
            )
            for way, times in taken.items():
                for metric, unit, samples in (
                    ("time", "ms", times),
                    ("time, of ours", "1", ratios(times, taken["ours"])),
                ):
                    yield Row.of(
                        samples,
                        question=QUESTION,
                        provider=way,
                        metric=metric,
                        x=case,
                        unit=unit,
                        config=f"SmolLM2-135M's layer, {name}, one thread",
                    )


if __name__ == "__main__":
    use_one_thread(f"benchmarks.{QUESTION}")
    with torch.inference_mode():
        keep(QUESTION, measure())
