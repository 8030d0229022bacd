"""The plan of a step: its segments and row blocks, built once and shared by all layers."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import torch

from aril.kernels.sgmv.plan_layout import PlanLayout
from aril.kernels.sgmv.row_blocks import BlockTable, build_blocks, worst_case_blocks
from aril.kernels.sgmv.row_tasks import RowTasks, cut_into_tasks
from aril.kernels.sgmv.segments import Segment, find_segments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


class SgmvMode(StrEnum):
    """How far a row's bits may depend on its neighbours.

    `FAST` chooses tiles by the size of the batch. `INVARIANT` chooses them by the shape of the
    weights alone: a row's result has the same bits alone and in any mix, at any position.
    """

    FAST = "fast"
    INVARIANT = "invariant"


class SgmvPlan:
    """The segments of one step. Make it with `make_plan` or `plan_on`.

    The same plan serves every layer of the step, because the rows of a batch keep their adapter
    through the whole model.
    """

    def __init__(
        self,
        row_slots: Tensor,
        row_scales: Tensor | None,
        *,
        slots: int,
        mode: SgmvMode,
        device: torch.device,
        static: bool,
        layout: PlanLayout | None,
        table: BlockTable | None = None,
    ) -> None:
        self.slots = slots
        self.mode = mode
        self.invariant = mode is SgmvMode.INVARIANT
        self.device = device
        self.static = static
        self._row_slots = row_slots
        self._row_scales = row_scales
        self._layout = layout  # the same on the host, where it is known there
        self._sent = table  # whose contents come with the plan's
        self._tables: dict[int, BlockTable] = {} if table is None else {table.block_m: table}
        self._row_tasks: RowTasks | None = None
        self._segments: tuple[Segment, ...] | None = None

    @property
    def rows(self) -> int:
        """How many rows the step has, with and without adapter."""
        return self._row_slots.shape[0]

    @property
    def row_slots(self) -> Tensor:
        """The slot of each row [T] int32 on the plan's device; -1 for none. Not to be changed."""
        return self._row_slots

    @property
    def row_scales(self) -> Tensor | None:
        """What each row's product is multiplied by, float32 [T] on the plan's device; None: by 1.

        Not to be changed.
        """
        return self._row_scales

    @property
    def adapters(self) -> int | None:
        """How many adapters the rows are of; None where only the device knows or it may change."""
        return None if self.static or self._layout is None else self._layout.adapters

    @property
    def segments(self) -> tuple[Segment, ...]:
        """One segment per adapter, in the order of first appearance; found at the first use.

        Ids that were given on a device are read by the host then. On a device each segment of
        scattered rows costs a copy: Triton's kernels do without.
        """
        if self._segments is None:
            if self._layout is None:
                ids, scales = self._row_slots, self._row_scales
            else:
                ids, scales = self._layout.ids, self._layout.scales
            self._segments = find_segments(ids, self.device, scales)
        return self._segments

    @property
    def row_tasks(self) -> RowTasks:
        """The segments as machine code on a CPU takes them; found at the first use, then kept."""
        if self._row_tasks is None:
            self._row_tasks = cut_into_tasks(self.segments)
        return self._row_tasks

    def blocks(self, block_m: int) -> BlockTable:
        """Return the block table for one block height; built at the first call, then kept."""
        if block_m not in self._tables:
            self._tables[block_m] = self._build(block_m)
        return self._tables[block_m]

    def update_(self, row_slots: Tensor, row_scales: Tensor | None = None) -> None:
        """Give a static plan another step's segments, in place, for the replay of a CUDA graph.

        `row_slots` is int32, `row_scales` float32 (None: all 1), with as many rows as the plan was
        made for. The tables keep their
        addresses and their room, which is the worst case, so a replay may use more adapters than
        the capture did.
        """
        if not self.static:
            raise ValueError("only a static plan can be updated: make_plan(..., static=True)")
        if row_slots.shape != self._row_slots.shape:
            raise ValueError(f"the plan has {self.rows} rows, got {tuple(row_slots.shape)}")
        layout = _layout_of(row_slots, row_scales, self.slots)
        self._row_slots.copy_(row_slots)
        if self._row_scales is not None:
            self._row_scales.copy_(torch.ones(()) if row_scales is None else row_scales)
        self._sent = None
        self.follow(layout)

    def follow(self, layout: PlanLayout | None) -> None:
        """Note that a static plan's tensors hold another step's numbers by now.

        That is `PlanLayout.arrays` of this one, copied to where `plan_on` took the tensors from.
        """
        self._layout = layout
        self._segments = self._row_tasks = None
        for block_m, table in self._tables.items():
            if table is not self._sent:
                fresh = self._build(block_m)
                table.rows.copy_(fresh.rows)
                table.slots.copy_(fresh.slots)

    def _build(self, block_m: int) -> BlockTable:
        if self.static or self._layout is None:
            blocks = worst_case_blocks(self.rows, self.slots, block_m)
        else:
            blocks = self._layout.blocks(block_m)
        return build_blocks(self._row_slots, slots=self.slots, block_m=block_m, blocks=blocks)


def make_plan(
    row_slots: Tensor,
    *,
    slots: int,
    row_scales: Tensor | None = None,
    mode: SgmvMode | str = SgmvMode.FAST,
    device: torch.device | str | None = None,
    static: bool = False,
) -> SgmvPlan:
    """Plan one step from the adapter slot of each row.

    `row_slots` is int32 [T]; -1 means no adapter, else the id is in [0, slots). Rows of one
    adapter need not be adjacent; adjacent rows are read without a copy on the CPU. `row_scales`
    float32 [T] is what each row's product is multiplied by, None for 1: that costs nothing, and one
    of 1 gives the same bits.

    Ids on the host are checked, and grids fit the segments exactly. Ids that are already on a
    device are planned there without waiting for it: grids then have room for the worst case, and
    an id that is no slot counts as no adapter. `device` is where x and y live (default: where
    `row_slots` lives). A `static` plan can be changed in place by `SgmvPlan.update_`. Each of the
    plan's tensors is copied by itself: for a step's numbers in one copy see `plan_on`.

    Raises `ValueError` when the tensor has another shape or type or an id is out of range.
    """
    layout = _layout_of(row_slots, row_scales, slots)
    # A static plan has them always: what a later step brings has to have its place.
    if static and row_scales is None:
        row_scales = torch.ones(row_slots.shape)
    place = torch.device(device) if device is not None else row_slots.device
    return SgmvPlan(
        row_slots.to(place, copy=True),
        None if row_scales is None else row_scales.to(place, copy=True),
        slots=slots,
        mode=SgmvMode(mode),
        device=place,
        static=static,
        layout=layout,
    )


def plan_on(
    layout: PlanLayout,
    there: Iterator[Tensor],
    *,
    mode: SgmvMode | str = SgmvMode.FAST,
    device: torch.device,
) -> SgmvPlan:
    """Make a plan of a layout whose `arrays` are tensors on a device by now, the next of `there`.

    The tensors are the plan's own from then on; a static one follows what is copied there.
    """
    ids, scales, rows, slots = (next(there) for _ in layout.arrays)
    table = None if layout.table is None else BlockTable(rows, slots, layout.table.block_m)
    return SgmvPlan(
        ids,
        scales if len(scales) else None,
        slots=layout.slots,
        mode=SgmvMode(mode),
        device=device,
        static=layout.static,
        layout=layout,
        table=table,
    )


def _layout_of(row_slots: Tensor, row_scales: Tensor | None, slots: int) -> PlanLayout | None:
    """Check ids, and return them as they are known on the host; None for those on a device."""
    if slots < 1:
        raise ValueError(f"slots must be positive, got {slots}")
    if row_slots.ndim != 1 or row_slots.dtype != torch.int32:
        raise ValueError(
            f"row_slots must be int32 [T], got {row_slots.dtype} {tuple(row_slots.shape)}"
        )
    if row_scales is not None and (
        row_scales.shape != row_slots.shape or row_scales.dtype != torch.float32
    ):
        raise ValueError(
            f"row_scales must be float32 {list(row_slots.shape)}, got {row_scales.dtype} "
            f"{list(row_scales.shape)}"
        )
    if row_slots.device.type != "cpu":
        return None
    scales = None if row_scales is None else row_scales.cpu().numpy().copy()
    return PlanLayout(row_slots.numpy().copy(), scales, slots=slots)
