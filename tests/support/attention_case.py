"""A batch for paged attention, run by any backend, and its definition in fp64."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from aril.kernels.attention import paged_attention
from aril.kernels.attention.tiles import AttentionTiles
from tests.support.device import device_of, sized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

SCALE = 0.3
SINKS = torch.tensor([-2.0, 0.0, 0.5, 1.0, 2.0, 5.0])


@dataclass(frozen=True)
class AttentionCase:
    """Sequences of (new queries, keys so far) over pages in random order."""

    q: Tensor
    k_cache: Tensor
    v_cache: Tensor
    block_table: Tensor
    cu_q: Tensor
    kv_lens: Tensor

    def run(
        self,
        backend: str,
        *,
        window: int | None = None,
        chunk: int | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
        invariant: bool = False,
    ) -> Tensor:
        """Attend; on Triton with tiles small enough that tiny sequences have several splits."""
        tiles = None
        if backend == "triton":
            tall = 32 if self.q.shape[1] > 16 * self.k_cache.shape[2] else 16
            # A GPU's product takes 16 at least; the interpreter takes less, and is the quicker.
            tiles = AttentionTiles(block_m=tall, block_n=sized(8, 16), split=sized(16, 32))
        there = self.to(device_of(backend))
        return paged_attention(
            there.q,
            there.k_cache,
            there.v_cache,
            there.block_table,
            there.cu_q,
            there.kv_lens,
            scale=SCALE,
            window=window,
            chunk=chunk,
            softcap=softcap,
            sinks=None if sinks is None else sinks.to(there.q.device),
            invariant=invariant,
            backend=backend,
            tiles=tiles,
        ).cpu()

    def to(self, device: torch.device) -> AttentionCase:
        """Move all operands."""
        return AttentionCase(*(getattr(self, name.name).to(device) for name in fields(self)))

    def expected(
        self,
        window: int | None = None,
        *,
        chunk: int | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Compute the definition in fp64, one query at a time."""
        page = self.k_cache.shape[1]
        group = self.q.shape[1] // self.k_cache.shape[2]
        out = torch.full(self.q.shape, float("nan"), dtype=torch.float64)
        for seq, length in enumerate(self.kv_lens.tolist()):
            pages = self.block_table[seq, : -(-length // page)].long()
            keys, values = (
                cache[pages].flatten(0, 1)[:length].double().repeat_interleave(group, 1)
                for cache in (self.k_cache, self.v_cache)
            )
            first, stop = int(self.cu_q[seq]), int(self.cu_q[seq + 1])
            for row in range(first, stop):
                end = length - (stop - 1 - row)
                begin = 0 if window is None else max(0, end - window)
                if chunk is not None:
                    begin = (end - 1) // chunk * chunk
                scores = torch.einsum("hd,khd->hk", self.q[row].double(), keys[begin:end]) * SCALE
                if softcap is not None:
                    scores = (scores / softcap).tanh() * softcap
                if sinks is not None:
                    scores = torch.cat([scores, sinks[:, None].double()], -1)
                weights = scores.softmax(-1)[:, : end - begin]
                out[row] = torch.einsum("hk,khd->hd", weights, values[begin:end])
        return out

    def sequence(self, seq: int) -> AttentionCase:
        """Keep one sequence, on the same cache."""
        first, stop = int(self.cu_q[seq]), int(self.cu_q[seq + 1])
        return AttentionCase(
            self.q[first:stop],
            self.k_cache,
            self.v_cache,
            self.block_table[seq : seq + 1],
            torch.tensor([0, stop - first], dtype=torch.int32),
            self.kv_lens[seq : seq + 1],
        )


def make_case(
    sequences: Sequence[tuple[int, int]],
    *,
    heads: int = 6,
    kv_heads: int = 2,
    dim: int = 12,
    page: int = 4,
    dtype: torch.dtype = torch.float32,
) -> AttentionCase:
    """Make sequences of (queries, keys); pages that nobody owns, and table entries, are poison."""
    generator = torch.Generator().manual_seed(len(sequences))
    needed = [-(-keys // page) for _, keys in sequences]
    owned = sum(needed)
    shape = (2, owned + 2, page, kv_heads, dim)
    k_cache, v_cache = torch.randn(shape, generator=generator).to(dtype)
    order = (torch.randperm(owned, generator=generator) + 1).tolist()
    for cache in (k_cache, v_cache):
        cache[0] = cache[-1] = 1e4
    table = torch.full((len(sequences), max(needed, default=0) + 1), -1, dtype=torch.int32)
    for seq, count in enumerate(needed):
        table[seq, :count] = torch.tensor([order.pop() for _ in range(count)], dtype=torch.int32)
    queries = torch.tensor([0, *(count for count, _ in sequences)])
    return AttentionCase(
        torch.randn(int(queries.sum()), heads, dim, generator=generator).to(dtype),
        k_cache,
        v_cache,
        table,
        queries.cumsum(0).to(torch.int32),
        torch.tensor([keys for _, keys in sequences], dtype=torch.int32),
    )


# A decode over several splits, a fresh prefill, a chunk on cached keys, a one-token prompt.
MIXED = [(1, 37), (9, 9), (5, 21), (1, 1), (1, 16), (0, 0), (1, 38)]
