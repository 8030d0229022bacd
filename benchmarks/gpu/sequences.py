"""Batches of sequences for attention: their shapes, operands and right answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from aril.kernels.attention import paged_attention

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """Sequences of (new queries, keys in all), and the heads of the model."""

    name: str
    sequences: tuple[tuple[int, int], ...]
    heads: int = 32
    kv_heads: int = 8
    dim: int = 128
    page: int = 16
    dtype: str = "bfloat16"

    @property
    def rows(self) -> int:
        """New queries of all sequences."""
        return sum(queries for queries, _ in self.sequences)

    @property
    def bytes(self) -> int:
        """Least memory traffic of 16-bit operands: each key and value once, q and the result."""
        keys = sum(keys for _, keys in self.sequences)
        return 2 * self.dim * (2 * keys * self.kv_heads + 2 * self.rows * self.heads)

    @property
    def config(self) -> str:
        """What the CSV says of it."""
        return f"{self.name}; {self.heads} heads over {self.kv_heads}; {self.dim}; {self.dtype}"


@dataclass(frozen=True)
class Problem:
    """The operands of `paged_attention`, and the keys and values of each sequence in one piece."""

    shape: Shape
    q: Tensor
    k_cache: Tensor
    v_cache: Tensor
    block_table: Tensor
    cu_q: Tensor
    kv_lens: Tensor

    @property
    def scale(self) -> float:
        """The usual one."""
        return self.shape.dim**-0.5

    def contiguous(self, sequence: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return q [heads, queries, d], k and v [kv_heads, keys, d] of one sequence."""
        _, keys = self.shape.sequences[sequence]
        pages = self.block_table[sequence, : -(-keys // self.shape.page)].long()
        first, stop = int(self.cu_q[sequence]), int(self.cu_q[sequence + 1])
        k, v = (
            cache[pages].flatten(0, 1)[:keys].transpose(0, 1)
            for cache in (self.k_cache, self.v_cache)
        )
        return self.q[first:stop].transpose(0, 1), k, v

    def alone(self, sequence: int) -> Problem:
        """Keep one sequence."""
        first, stop = int(self.cu_q[sequence]), int(self.cu_q[sequence + 1])
        return Problem(
            replace(self.shape, sequences=(self.shape.sequences[sequence],)),
            self.q[first:stop],
            self.k_cache,
            self.v_cache,
            self.block_table[sequence : sequence + 1],
            torch.tensor([0, stop - first], dtype=torch.int32, device=self.q.device),
            self.kv_lens[sequence : sequence + 1],
        )

    def attend(self, **options: Any) -> Tensor:
        """Attend by our Triton kernels; `options` as `paged_attention` takes them."""
        return paged_attention(
            self.q,
            self.k_cache,
            self.v_cache,
            self.block_table,
            self.cu_q,
            self.kv_lens,
            scale=self.scale,
            backend="triton",
            **options,
        )

    def exact(self) -> Tensor:
        """Attend in fp64, one sequence and one kv head at a time."""
        group = self.shape.heads // self.shape.kv_heads
        out = torch.empty(self.q.shape, dtype=torch.float64, device=self.q.device)
        for sequence, (queries, keys) in enumerate(self.shape.sequences):
            q, k, v = (part.double() for part in self.contiguous(sequence))
            hidden = torch.ones(queries, keys, dtype=torch.bool, device=q.device)
            hidden = hidden.triu(keys - queries + 1)
            first = int(self.cu_q[sequence])
            for head in range(self.shape.kv_heads):
                heads = slice(head * group, (head + 1) * group)
                scores = (q[heads] @ k[head].T * self.scale).masked_fill(hidden, float("-inf"))
                result = scores.softmax(-1) @ v[head]
                out[first : first + queries, heads] = result.transpose(0, 1)
        return out


def make_problem(shape: Shape, device: torch.device, *, seed: int) -> Problem:
    """Draw the operands; each sequence's pages lie in random order."""
    generator = torch.Generator(device).manual_seed(seed)
    dtype = getattr(torch, shape.dtype)
    needed = [-(-keys // shape.page) for _, keys in shape.sequences]
    size = (sum(needed), shape.page, shape.kv_heads, shape.dim)
    k_cache, v_cache = (
        torch.randn(size, generator=generator, device=device, dtype=dtype) for _ in range(2)
    )
    order = torch.randperm(sum(needed), generator=generator, device=device).to(torch.int32)
    table = torch.zeros(len(needed), max(needed), dtype=torch.int32, device=device)
    for sequence, pages in enumerate(order.split(needed)):
        table[sequence, : len(pages)] = pages
    starts = torch.tensor([0, *(queries for queries, _ in shape.sequences)]).cumsum(0)
    keys = torch.tensor([keys for _, keys in shape.sequences], dtype=torch.int32, device=device)
    q = torch.randn(
        shape.rows, shape.heads, shape.dim, generator=generator, device=device, dtype=dtype
    )
    return Problem(shape, q, k_cache, v_cache, table, starts.to(device, torch.int32), keys)


def all_shapes() -> Iterator[Shape]:
    """List the shapes, those that tell most first."""
    for heads in (32, 64):
        for keys in (2048, 512, 8192):
            for rows in (64, 1, 16, 4):
                yield Shape(f"Decode {rows} x {keys}", ((1, keys),) * rows, heads=heads)
        for count, length in ((1, 2048), (4, 512), (1, 8192)):
            yield Shape(f"Prefill {count} x {length}", ((length, length),) * count, heads=heads)
        yield Shape("Chunk 512 on 4096", ((512, 4096),), heads=heads)
        mixed = ((1, 2048),) * 32 + ((512, 512),)
        yield Shape("Mixed 32 x 2048 and 512", mixed, heads=heads)


def tiny_shapes() -> Iterator[Shape]:
    """List a decode and a mix that the interpreter can do."""
    small = {"heads": 4, "kv_heads": 2, "dim": 16, "page": 4, "dtype": "float16"}
    yield Shape("Decode 2 x 9", ((1, 9),) * 2, **small)  # type: ignore[arg-type]
    yield Shape("Mixed 1 x 9 and 5", ((1, 9), (5, 5)), **small)  # type: ignore[arg-type]
