"""The operands of one call in a form that every provider can be fed from, and the right answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from benchmarks.gpu.workloads import Case

# What rounding may do to a row, as ‖result - exact‖ / ‖exact‖. The peers round the shrunk rows to
# the operands' type and add to y in it; a wrong index or a lost tile is off by far more.
TOLERANCE = {torch.float16: 3e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5}
EXACT_RANK = 32


def row_error(got: Tensor, exact: Tensor) -> float:
    """Return the largest ‖got - exact‖ / ‖exact‖ over the rows; NaN where anything is NaN."""
    off = (got.double() - exact).flatten(1).norm(dim=1)
    return float((off / exact.flatten(1).norm(dim=1).clamp(min=1e-9)).max())


@dataclass(frozen=True)
class Problem:
    """y [T, sum(widths)], x [T, h], per slice a [slots, r_max, h] and b [slots, width, r_max].

    `ranks` and `scales` have one entry a slot; weights past a slot's rank are 0, since some
    peers multiply them. `row_slots` int32 [T] lives on the host, -1 for no adapter. `gains` float32
    [slots, sum(widths)] where the case has slots with gains; those of the others are not used.
    """

    case: Case
    x: Tensor
    y: Tensor
    a: tuple[Tensor, ...]
    b: tuple[Tensor, ...]
    ranks: tuple[int, ...]
    scales: tuple[float, ...]
    row_slots: Tensor
    gains: Tensor | None = None

    @property
    def slots(self) -> int:
        """How many adapters are resident."""
        return len(self.ranks)

    @property
    def max_rank(self) -> int:
        """The rank that slots have room for."""
        return self.a[0].shape[1]

    @property
    def widths(self) -> tuple[int, ...]:
        """Output features of each slice."""
        return self.case.layer.widths

    @property
    def device(self) -> torch.device:
        """Where the operands live."""
        return self.x.device

    @property
    def ranks_and_scales(self) -> tuple[Tensor, Tensor]:
        """Rank int32 and scale float32 of each slot and slice, [slots, slices], on the device."""
        ranks = torch.tensor(self.ranks, dtype=torch.int32, device=self.device)
        scales = torch.tensor(self.scales, dtype=torch.float32, device=self.device)
        ranks, scales = (part[:, None].repeat(1, len(self.widths)) for part in (ranks, scales))
        return ranks, scales

    def fresh(self) -> Problem:
        """Return the same problem on a copy of y."""
        return self.on_rows(range(self.x.shape[0]))

    def on_rows(self, rows: Sequence[int]) -> Problem:
        """Keep these rows, in this order."""
        index = torch.tensor(list(rows), device=self.device)
        return Problem(
            self.case,
            self.x[index],
            self.y[index].clone(),
            self.a,
            self.b,
            self.ranks,
            self.scales,
            self.row_slots[index.cpu()],
            self.gains,
        )

    def exact(self) -> Tensor:
        """Return (y + scale · (x Aᵀ) Bᵀ) · gain in fp64, adapter by adapter."""
        result = self.y.double()
        for slot, rank in enumerate(self.ranks):
            rows = (self.row_slots == slot).nonzero().flatten().to(self.device)
            if not len(rows):
                continue
            x = self.x[rows].double()
            first = 0
            for a, b in zip(self.a, self.b, strict=True):
                shrunk = x @ a[slot, :rank].double().T
                delta = self.scales[slot] * shrunk @ b[slot, :, :rank].double().T
                result[rows, first : first + b.shape[1]] += delta
                first += b.shape[1]
            if self.gains is not None and slot in self.case.dora:
                result[rows] *= self.gains[slot].double()
        return result


def make_problem(
    case: Case, device: torch.device | str, *, seed: int = 0, integers: bool = False
) -> Problem:
    """Draw the operands of a case, scaled so that every product is of the order of 1.

    With `integers` they are small whole numbers, most of them 0, chosen so that no sum and no
    intermediate result passes 256: every step is then exact in bf16, in any order.
    """
    dtype = getattr(torch, case.dtype)
    generator = torch.Generator(device).manual_seed(seed)
    slots, max_rank, h = len(case.ranks), max(case.ranks), case.layer.in_features

    def draw(*shape: int, spread: float) -> Tensor:
        if integers:
            return torch.randint(-1, 2, shape, generator=generator, device=device).to(dtype)
        drawn = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        return (drawn * spread).to(dtype)

    x = draw(case.rows, h, spread=1.0)
    if integers:
        live = torch.randint(0, h, (case.rows, 4), generator=generator, device=device)
        x *= torch.zeros_like(x).scatter_(1, live, 1.0)
    y = draw(case.rows, sum(case.layer.widths), spread=1.0)
    a = tuple(draw(slots, max_rank, h, spread=h**-0.5) for _ in case.layer.widths)
    b = tuple(draw(slots, width, max_rank, spread=max_rank**-0.5) for width in case.layer.widths)
    for slot, rank in enumerate(case.ranks):
        kept = min(rank, EXACT_RANK) if integers else rank
        for part in a:
            part[slot, kept:] = 0
        for part in b:
            part[slot, :, kept:] = 0
    scales = tuple(1.0 if integers else 0.5 + slot % 3 / 4 for slot in range(slots))
    row_slots = torch.tensor(case.row_slots, dtype=torch.int32)
    gains = None
    if case.dora:
        # Below 1: who multiplies the same y again and again must not come to infinity.
        gains = torch.rand(slots, y.shape[1], generator=generator, device=device) / 4 + 0.5
        if integers:
            gains = torch.where(gains < 0.625, -1.0, 1.0)
    return Problem(case, x, y, a, b, case.ranks, scales, row_slots, gains)
