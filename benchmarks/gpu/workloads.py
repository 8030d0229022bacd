"""How the rows of a batch share adapters, and the shapes of real layers.

The four workloads are Punica's (`get_lora_lens` of its benchmarks, where they carry the names of
kernels): Distinct `bgmv`, Uniform `uniform`, Skewed `zipf:1.5`, Identical `bmm`.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SKEW = 1.5


class Workload(StrEnum):
    """Which rows share an adapter."""

    DISTINCT = "Distinct"
    UNIFORM = "Uniform"
    SKEWED = "Skewed"
    IDENTICAL = "Identical"


def segment_sizes(workload: Workload, rows: int) -> list[int]:
    """Rows of each adapter, largest first.

    Distinct: one each. Uniform: ⌈√rows⌉ adapters, as even as can be. Skewed: ⌊1.5^k⌋ rows for
    k = 0, 1, … while they fit, the rest to one more; despite the name it has in Punica's
    script, a geometric row and no Zipf law. Identical: one adapter.
    """
    if rows < 1:
        raise ValueError(f"a batch has at least one row, got {rows}")
    match workload:
        case Workload.DISTINCT:
            return [1] * rows
        case Workload.IDENTICAL:
            return [rows]
        case Workload.UNIFORM:
            adapters = math.ceil(math.sqrt(rows))
            return [rows // adapters + (i < rows % adapters) for i in range(adapters)]
        case Workload.SKEWED:
            sizes: list[int] = []
            share = 1.0
            while sum(sizes) + int(share) < rows:
                sizes.append(int(share))
                share *= SKEW
            return sorted([*sizes, rows - sum(sizes)], reverse=True)


def spread(sizes: Sequence[int], *, seed: int = 0) -> list[int]:
    """Give each row its slot, rows of all adapters shuffled among each other."""
    row_slots = [slot for slot, size in enumerate(sizes) for _ in range(size)]
    random.Random(seed).shuffle(row_slots)
    return row_slots


@dataclass(frozen=True)
class Layer:
    """A fused group of linears: those that read one x, and how wide they are."""

    name: str
    in_features: int
    widths: tuple[int, ...]

    @property
    def sizes(self) -> str:
        """The shape in words, as results carry it."""
        return f"{self.in_features} to {'+'.join(map(str, self.widths))}"


PUNICA = Layer("Punica", 4096, (11008,))
LLAMA_8B = (
    Layer("8B qkv", 4096, (4096, 1024, 1024)),
    Layer("8B o", 4096, (4096,)),
    Layer("8B gate up", 4096, (14336, 14336)),
    Layer("8B down", 14336, (4096,)),
)
LLAMA_70B = (
    Layer("70B qkv", 8192, (8192, 1024, 1024)),
    Layer("70B o", 8192, (8192,)),
    Layer("70B gate up", 8192, (28672, 28672)),
    Layer("70B down", 28672, (8192,)),
)
TINY = (Layer("tiny qkv", 64, (32, 16, 16)), Layer("tiny o", 64, (48,)))


@dataclass(frozen=True)
class Case:
    """One operator call to measure: a layer, which row has which slot (-1: none), slots' ranks.

    The slots in `dora` have gains, see `aril.kernels.sgmv.Gains`.
    """

    workload: str
    layer: Layer
    row_slots: tuple[int, ...]
    ranks: tuple[int, ...]
    decode: bool = True
    dtype: str = field(default="bfloat16", kw_only=True)
    dora: tuple[int, ...] = field(default=(), kw_only=True)

    @property
    def rows(self) -> int:
        """How many rows the batch has."""
        return len(self.row_slots)

    @property
    def segments(self) -> dict[int, int]:
        """Rows of each slot, as `aril.kernels.sgmv.cost` takes them."""
        return {slot: self.row_slots.count(slot) for slot in sorted({*self.row_slots} - {-1})}

    @property
    def slice_ranks(self) -> dict[int, list[int]]:
        """Rank of each slot and slice, as `aril.kernels.sgmv.cost` takes them."""
        return {slot: [rank] * len(self.layer.widths) for slot, rank in enumerate(self.ranks)}

    @property
    def config(self) -> str:
        """What the CSV says of it; `parse_config` reads it back."""
        low, high = min(self.ranks), max(self.ranks)
        rank = f"rank {low}" if low == high else f"ranks {low} to {high}"
        return f"{self.workload}; {self.layer.name}; {self.layer.sizes}; {rank}; {self.dtype}"


def parse_config(config: str) -> dict[str, str]:
    """Split a result's `config` into workload, layer, sizes, rank and type."""
    names = ("workload", "layer", "sizes", "rank", "dtype")
    return dict(zip(names, (part.strip() for part in config.split(";")), strict=False))


def decode_case(
    workload: Workload,
    layer: Layer,
    rows: int,
    rank: int,
    *,
    dtype: str = "bfloat16",
    together: bool = False,
) -> Case:
    """Take one token a request; an adapter's rows lie apart, in order of arrival, or `together`."""
    sizes = segment_sizes(workload, rows)
    row_slots = spread(sizes, seed=rows)
    if together:
        row_slots.sort()
    return Case(workload, layer, tuple(row_slots), (rank,) * len(sizes), dtype=dtype)


MIXED_RANKS = (8, 16, 32, 64, 128)


def mixed_rank_case(
    workload: Workload, layer: Layer, rows: int, *, dtype: str = "bfloat16"
) -> Case:
    """Take one token a request, of adapters of ranks 8, 16, 32, 64 and 128 in turn."""
    sizes = segment_sizes(workload, rows)
    ranks = tuple(MIXED_RANKS[slot % len(MIXED_RANKS)] for slot in range(len(sizes)))
    return Case(workload, layer, tuple(spread(sizes, seed=rows)), ranks, dtype=dtype)


def dora_case(
    workload: Workload, layer: Layer, rows: int, rank: int, *, dtype: str = "bfloat16"
) -> Case:
    """Take one token a request, every second adapter with gains."""
    plain = decode_case(workload, layer, rows, rank, dtype=dtype)
    dora = tuple(range(0, len(plain.ranks), 2))
    return replace(plain, workload=f"{workload}, every second adapter DoRA", dora=dora)


def prefill_case(
    layer: Layer,
    prompts: Sequence[int],
    *,
    decodes: int = 0,
    backbone: int = 0,
    rank: int = 16,
    dtype: str = "bfloat16",
) -> Case:
    """Prompts of these lengths, each with its own adapter, adjacent rows; then decode rows.

    `decodes` rows have an adapter each, those of the prompts first; `backbone` rows have none.
    """
    slots = max(len(prompts), decodes, 1)
    rows = [slot for slot, length in enumerate(prompts) for _ in range(length)]
    rows += [*range(decodes), *[-1] * backbone]
    name = "Prefill" if decodes + backbone == 0 else "Prefill and decode"
    return Case(
        f"{name} {len(prompts)}+{decodes}+{backbone}",
        layer,
        tuple(rows),
        (rank,) * slots,
        decode=False,
        dtype=dtype,
    )
