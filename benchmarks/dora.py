"""What DoRA costs beside LoRA: its gains when an adapter comes, and the scaling of each step.

    python -m benchmarks.dora    # writes dora.csv

SmolLM2-135M's linears. The gains need the norm of W + s B A row by row. Two ways take turns: read W
back from oneDNN's layout and add the product by chunks (what the engine does), or expand the
square, ‖w‖² + 2 s (w Aᵀ) b + s² b (A Aᵀ) bᵀ, where the products with W run in its own layout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from aril.kernels.sgmv import make_plan
from aril.worker.adapters import AdapterWeights, LoraModule
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.dora import gain_of
from aril.worker.engine.lora import AdapterLayers
from benchmarks.record import Row, keep, ratios
from benchmarks.smollm2 import load_smollm2
from benchmarks.turns import in_turns, milliseconds

if TYPE_CHECKING:
    from torch import Tensor

    from aril.worker.engine.groups import LinearGroup
    from aril.worker.engine.model import Backbone

QUESTION = "dora"
ROWS = 16
BACKBONE_ROWS = 3
RANKS = (4, 8, 16, 32)
REPETITIONS = 9
THREADS = 1  # two wait for each other where the cores are shared


@dataclass(frozen=True)
class Setting:
    """A backbone laid out as the engine has it, with what the expansion needs of its weights."""

    backbone: Backbone
    layers: AdapterLayers
    squares: dict[str, Tensor]  # ‖w‖² of each row, fp64
    name: str

    @classmethod
    def load(cls, dtype: torch.dtype) -> Setting:
        """Load and lay out."""
        backbone = load_smollm2(dtype)
        config = EngineConfig(
            max_rows=ROWS, max_step_tokens=ROWS, slots=8, max_rank=64, kv_tokens=1_024, dtype=dtype
        )
        layers = AdapterLayers(backbone, config)
        squares = {
            name: weight.double().square().sum(1)
            for group in layers.groups
            for name, weight in zip(group.names, group.dense_weights(), strict=True)
        }
        layers.pack()
        return cls(backbone, layers, squares, str(dtype).removeprefix("torch."))

    def adapter(self, rank: int, *, dora: bool = True) -> AdapterWeights:
        """Draw an adapter of every linear of the layers, about as large as trained ones are."""
        generator = torch.Generator().manual_seed(rank)
        modules = {}
        for path, (out, into) in self.backbone.linear_shapes.items():
            if path == self.backbone.output_module:
                continue
            a = torch.randn(rank, into, generator=generator) * into**-0.5
            b = torch.randn(out, rank, generator=generator) * 0.02
            modules[path] = LoraModule(rank, 2.0, a, b, torch.ones(out) if dora else None)
        return AdapterWeights(name=f"r{rank}", digest=f"r{rank}", rank=rank, modules=modules)


def direct(setting: Setting, adapter: AdapterWeights) -> dict[str, Tensor]:
    """Take the norms as the engine does."""
    return {
        name: 1 / gain_of(weight, adapter.modules[name])
        for group in changed(setting, adapter)
        for name, weight in zip(group.names, group.dense_weights(), strict=True)
    }


def expanded(setting: Setting, adapter: AdapterWeights) -> dict[str, Tensor]:
    """Take them by the expansion of the square, its sums in fp64; for linears without bias."""
    norms = {}
    for group in changed(setting, adapter):
        modules = [adapter.modules[name] for name in group.names]
        stacked = torch.cat([module.a for module in modules]).to(setting.backbone.dtype)
        products = group._multiply(stacked).split(group.widths, 1)  # noqa: SLF001 - W is readable by it alone
        start = 0
        for name, module, product in zip(group.names, modules, products, strict=True):
            a, b = module.a.double(), module.b.double()
            crossed = (b * product[start : start + len(a)].T.double()).sum(1)
            quadratic = ((b @ (a @ a.T)) * b).sum(1)
            square = setting.squares[name] + 2 * module.scaling * crossed
            norms[name] = (square + module.scaling**2 * quadratic).sqrt()
            start += len(a)
    return norms


def changed(setting: Setting, adapter: AdapterWeights) -> list[LinearGroup]:
    """List the groups that the adapter changes."""
    return [group for group in setting.layers.groups if group.names[0] in adapter.modules]


def measure_gains(setting: Setting, rank: int) -> list[Row]:
    """Time and largest relative error of both ways."""
    adapter = setting.adapter(rank)
    ways = {"read back, by chunks": direct, "square expanded": expanded}
    timed = {
        name: partial(milliseconds, partial(way, setting, adapter)) for name, way in ways.items()
    }
    times = in_turns(timed, REPETITIONS)
    exact = {
        name: (
            weight.double()
            + adapter.modules[name].scaling
            * adapter.modules[name].b.double()
            @ adapter.modules[name].a.double()
        ).norm(dim=1)
        for group in changed(setting, adapter)
        for name, weight in zip(group.names, group.dense_weights(), strict=True)
    }
    config = f"SmolLM2-135M {setting.name}, all linears of the layers, {THREADS} thread"
    row = partial(Row.of, question=QUESTION, x=rank, config=config)
    rows = []
    for name, way in ways.items():
        found = way(setting, adapter)
        worst = max(
            float(((found[path] - norm) / norm).abs().max()) for path, norm in exact.items()
        )
        rows.append(row(times[name], provider=name, metric="gains of an adapter", unit="ms"))
        rows.append(row([worst], provider=name, metric="largest relative error", unit="1"))
    return rows


def measure_step(setting: Setting) -> list[Row]:
    """Time the adapters' part of a decode step: the same adapters as LoRA and as DoRA."""
    share = -(-(ROWS - BACKBONE_ROWS) // len(RANKS))
    row_slots = [row // share for row in range(ROWS - BACKBONE_ROWS)] + [-1] * BACKBONE_ROWS
    kinds = {"LoRA": 0, "DoRA": len(RANKS)}
    for kind, first in kinds.items():
        for at, rank in enumerate(RANKS):
            adapter = setting.adapter(rank, dora=kind == "DoRA")
            setting.layers.load(first + at, replace(adapter, digest=f"{kind}{rank}"))
    groups = [group for group in setting.layers.groups if group.weights is not None]
    operands = [
        (group, torch.zeros(ROWS, sum(group.widths)), torch.randn(ROWS, group.in_features))
        for group in groups
    ]

    def step(first: int) -> None:
        ids = torch.tensor([slot + first if slot >= 0 else -1 for slot in row_slots])
        plan = make_plan(ids.to(torch.int32), slots=8)
        for group, y, x in operands:
            if group.weights is not None:
                group.weights.add_(y, x, plan)

    times = in_turns(
        {kind: partial(milliseconds, partial(step, first)) for kind, first in kinds.items()}, 41
    )
    config = (
        f"SmolLM2-135M float32, {ROWS} rows over ranks {', '.join(map(str, RANKS))} and "
        f"{BACKBONE_ROWS} of the backbone, all linears of the layers, {THREADS} thread"
    )
    row = partial(Row.of, question=QUESTION, x=ROWS, config=config)
    part = "adapters' part of a step"
    rows = [row(each, provider=kind, metric=part, unit="ms") for kind, each in times.items()]
    over = ratios(times["DoRA"], times["LoRA"])
    return [*rows, row(over, provider="DoRA", metric="part over that of LoRA", unit="1")]


def main() -> None:
    """Measure, print and write dora.csv."""
    torch.set_num_threads(THREADS)
    rows: list[Row] = []
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            setting = Setting.load(dtype)
            for rank in (16, 64):
                rows += measure_gains(setting, rank)
            if dtype is torch.float32:
                rows += measure_step(setting)
    keep(QUESTION, rows)


if __name__ == "__main__":
    main()
