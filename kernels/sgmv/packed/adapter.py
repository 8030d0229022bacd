"""What a slot holds: one adapter at its own rank, laid out as a CPU multiplies fastest."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from aril.kernels.backend import uses_native

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.kernels.sgmv.group import GroupShape, LoraPair

# MKL's fp32 products with fewer columns differ by a row's place within its block on some AMD
# processors.
WHOLE_COLUMNS = 8

# B carries the scale in these; in half types it would be rounded once more by that.
SCALED_TYPES = {torch.float32, torch.float64}


def slot_type(dtype: torch.dtype, device: torch.device, backend: str = "auto") -> torch.dtype:
    """Return the type in which slots keep weights for x and y of `dtype`.

    Torch's way on a CPU has float32 at least: its small products in half types are several times
    slower, and nothing else of a step is as small. Decisions 066 and 076.
    """
    if device.type != "cpu" or uses_native(backend, device, dtype):
        return dtype
    return torch.promote_types(dtype, torch.float32)


class PackedLinear(NamedTuple):
    """One linear of a fused group that the adapter changes."""

    columns: slice  # of x A
    outputs: slice  # of y
    b: Tensor  # [r, width], contiguous
    scale: float  # of x A B; 1 where b carries it
    gain: Tensor | None = None  # float32 [width] with DoRA, see gains.py
    bias: Tensor | None = None  # [width], given only where there is a gain

    def combine(self, own: Tensor, delta: Tensor) -> Tensor:
        """Return y's new values from its own and x A B, both [n, width] in the working type.

        Product and sum are separate operations: a fused one would round some elements otherwise.
        """
        if self.gain is None:
            return own + delta * self.scale
        if self.bias is None:
            return (own + delta * self.scale) * self.gain
        return ((own - self.bias) + delta * self.scale) * self.gain + self.bias


class _Adapter(NamedTuple):
    a: Tensor  # [in, sum of ranks], contiguous
    linears: tuple[PackedLinear, ...]  # those that the adapter changes, at least one
    width: int  # of the group's outputs


class PackedAdapter(_Adapter):
    """One adapter, in tensors that need no work per call."""

    @cached_property
    def filled(self) -> PackedAdapter:
        """The same in fp32 at least, ranks and widths filled with zeros to whole `WHOLE_COLUMNS`.

        Made when it is first asked for, in invariant mode; what is so already is not copied.
        """
        working = torch.promote_types(self.a.dtype, torch.float32)
        linears, columns, first = [], [], 0
        for linear in self.linears:
            rank, width = linear.b.shape
            spare_ranks, spare_outputs = -rank % WHOLE_COLUMNS, -width % WHOLE_COLUMNS
            place = slice(first, first + rank + spare_ranks)
            b = pad(linear.b.to(working), (0, spare_outputs, 0, spare_ranks)).contiguous()
            linears.append(linear._replace(columns=place, b=b))
            columns.append(pad(self.a[:, linear.columns], (0, spare_ranks)))
            first = place.stop
        a = self.a if first == self.a.shape[1] else torch.cat(columns, dim=1)
        return PackedAdapter(a.to(working), tuple(linears), self.width)


def pack(
    pairs: Sequence[LoraPair | None],
    shape: GroupShape,
    *,
    device: torch.device,
    dtype: torch.dtype,
    bias: Tensor | None = None,
) -> PackedAdapter | None:
    """Lay out pairs that fit the shape; None where the adapter changes no linear of the group.

    `bias` [sum(widths)] is the backbone's, which gains leave out.
    """
    linears = []
    rank_sum = 0
    for offset, width, pair in zip(shape.offsets, shape.widths, pairs, strict=True):
        if pair is None:
            continue
        outputs = slice(offset, offset + width)
        b, scale = pair.b.to(device, dtype), pair.scale
        if dtype in SCALED_TYPES:
            b, scale = b * scale, 1.0
        linear = PackedLinear(
            slice(rank_sum, rank_sum + len(pair.a)), outputs, b.T.contiguous(), scale
        )
        if pair.gain is not None:
            linear = linear._replace(
                gain=pair.gain.to(device, torch.float32).contiguous(),
                bias=None if bias is None else bias[outputs],
            )
        linears.append(linear)
        rank_sum += len(pair.a)
    if not linears:
        return None
    a = torch.cat([pair.a.to(device, dtype) for pair in pairs if pair is not None])
    return PackedAdapter(a.T.contiguous(), tuple(linears), sum(shape.widths))
