"""Adapters with random weights, for models of any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aril.worker.adapters import AdapterWeights, LoraModule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

OUTPUT = "lm_head"


def random_module(
    out: int, into: int, *, rank: int, scaling: float, generator: torch.Generator, dora: bool
) -> LoraModule:
    """Draw one linear's A [rank, into], B [out, rank] and, for DoRA, magnitudes from 0.5 to 1.5."""
    a = torch.randn(rank, into, generator=generator) * into**-0.5
    b = torch.randn(out, rank, generator=generator) * rank**-0.5
    magnitude = torch.rand(out, generator=generator) + 0.5 if dora else None
    return LoraModule(rank, scaling, a, b, magnitude)


def random_adapter(
    shapes: Mapping[str, tuple[int, int]],
    name: str = "a",
    *,
    rank: int = 4,
    scaling: float = 1.0,
    seed: int | None = None,
    dora: bool = False,
    targets: Collection[str] | None = None,
) -> AdapterWeights:
    """Draw weights for the linears whose path ends in a target; without targets all but the output.

    `shapes` is (out, in) by path, as `Backbone.linear_shapes` has them. Where no seed is given the
    name is one.
    """
    generator = torch.Generator().manual_seed(sum(name.encode()) if seed is None else seed)
    modules = {
        path: random_module(out, into, rank=rank, scaling=scaling, generator=generator, dora=dora)
        for path, (out, into) in shapes.items()
        if (path != OUTPUT if targets is None else path.endswith(tuple(targets)))
    }
    return AdapterWeights(name=name, digest=name, rank=rank, modules=modules)
