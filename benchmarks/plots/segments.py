"""The picture that explains SGMV: rows coloured by adapter, segments, blocks and slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from aril.kernels.sgmv import make_plan
from benchmarks.plots import style

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

ROW_SLOTS = (2, 0, -1, 2, 1, 2, 0)
RANKS = (2, 4, 1)  # rank of each slot, drawn as the width of A and the height of B
COLOURS = (style.RED, style.BLUE, style.GREEN)
BLOCK = 4
PADDING = "#E6E6E6"


def draw(results: Path, out: Path) -> list[Path]:  # noqa: ARG001 - drawn from no figures
    """Draw sgmv-segments.png; the index arrays in it are those that a real plan makes."""
    table = make_plan(torch.tensor(ROW_SLOTS, dtype=torch.int32), slots=3).blocks(BLOCK)
    picture = Figure(figsize=(style.INCHES, 4.5), layout="constrained")
    axes = picture.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, 32), ylim=(-1.2, 16.6), aspect="equal")
    _draw_batch(axes)
    _draw_blocks(axes, table.rows.tolist(), table.slots.tolist())
    _draw_slots(axes)
    return [style.save(picture, out, "sgmv-segments")]


def _row(axes: Axes, x: float, y: float, row: int) -> None:
    """Draw one row of x, or the padding of a block."""
    padding = row >= len(ROW_SLOTS)
    slot = -1 if padding else ROW_SLOTS[row]
    colour = PADDING if padding else "white" if slot < 0 else COLOURS[slot]
    edge = style.GREY if padding or slot < 0 else "white"
    axes.add_patch(Rectangle((x, y), 4.6, 0.9, facecolor=colour, edgecolor=edge, linewidth=1))
    label = "padding" if padding else f"row {row}"
    dark = padding or slot < 0
    axes.text(
        x + 2.3, y + 0.42, label, ha="center", va="center", fontsize=9,
        color=style.GREY if dark else "white", fontweight="normal" if dark else "bold",
    )  # fmt: skip


def _title(axes: Axes, x: float, head: str, words: str) -> None:
    axes.text(x, 16.2, head, fontsize=10, fontweight="bold", va="top")
    axes.text(x, 15.3, words, fontsize=8.5, va="top", color=style.GREY, linespacing=1.3)


def _draw_batch(axes: Axes) -> None:
    _title(axes, 0, "1  A step's batch", "one row a token,\nadapters mixed")
    for row, slot in enumerate(ROW_SLOTS):
        y = 11.6 - row * 1.5
        _row(axes, 0, y, row)
        axes.text(4.9, y + 0.42, f"slot {slot}", fontsize=8.5, va="center")
    axes.text(0, -0.2, "slot -1: backbone only,\nno work, y keeps its bits", fontsize=8.5, va="top",
              color=style.GREY)  # fmt: skip


def _draw_blocks(axes: Axes, rows: list[int], slots: list[int]) -> None:
    _title(axes, 9, "2  The plan, once a step", "segments padded to blocks of "
           f"{BLOCK}\n(16 on a GPU): two index arrays")  # fmt: skip
    y = 12.5
    for block, slot in enumerate(slots):
        top = y
        for row in rows[block * BLOCK : (block + 1) * BLOCK]:
            y -= 0.95
            _row(axes, 10.4, y, row)
        axes.text(9.9, (top + y) / 2, f"block {block}\nslot {slot}", fontsize=8.5, ha="right",
                  va="center")  # fmt: skip
        axes.add_patch(
            FancyArrowPatch(
                (15.2, (top + y) / 2),
                (18.6, _slot_middle(slot)),
                arrowstyle="-|>",
                mutation_scale=11,
                color=COLOURS[slot],
                linewidth=1.6,
            )
        )
        y -= 0.35


def _slot_middle(slot: int) -> float:
    return 10.4 - slot * 4.3


def _draw_slots(axes: Axes) -> None:
    _title(axes, 19, "3  Two launches, all adapters", "a program takes one block and\n"
           "gathers its weights by the slot")  # fmt: skip
    for slot, rank in enumerate(RANKS):
        middle, colour = _slot_middle(slot), COLOURS[slot]
        axes.text(19, middle + 1.5, f"slot {slot}: rank {rank}", fontsize=8.5)
        thin = 0.32 * rank
        axes.add_patch(Rectangle((19, middle - 1.1), thin, 2.2, color=colour, alpha=0.75))
        axes.text(19 + thin + 0.25, middle, "A", fontsize=10, va="center")
        axes.add_patch(Rectangle((22.4, middle - thin / 2), 3.4, thin, color=colour, alpha=0.75))
        axes.text(26.1, middle, "B", fontsize=10, va="center")
    axes.text(19, -0.2, "shrink: v = x Aᵀ, h → r\nexpand: y += s · v Bᵀ, r → h'", fontsize=9,
              va="top")  # fmt: skip
