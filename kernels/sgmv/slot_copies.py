"""What is to be written into slots of many linears, written by few launches."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    Send = Callable[[Sequence[NDArray[Any]]], Sequence[Tensor]]


class SlotCopies:
    """Gathers what stores of adapters write, until `run`. A GPU takes dense tensors in one launch.

    `send` brings arrays to where the slots are; by default that is the host.
    """

    def __init__(self, send: Send | None = None) -> None:
        self._send = send or (lambda arrays: [torch.from_numpy(each) for each in arrays])
        self._zeros: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        # By both types, and whether both are dense: others go one by one.
        self._copies: dict[object, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self._numbers: dict[torch.dtype, list[tuple[Tensor, list[float]]]] = defaultdict(list)

    def zero(self, *places: Tensor) -> None:
        """Fill dense places with zeros, before all else."""
        for place in places:
            self._zeros[place.dtype].append(place)

    def copy(self, place: Tensor, source: Tensor) -> None:
        """Copy a tensor; of another type it is rounded."""
        dense = place.is_contiguous() and source.is_contiguous()
        self._copies[place.dtype, source.dtype, dense].append((place, source))

    def numbers(self, place: Tensor, values: Iterable[float]) -> None:
        """Write numbers of the host into a place [k], int32 or float32."""
        self._numbers[place.dtype].append((place, list(values)))

    def run(self) -> None:
        """Write all of it."""
        for zeros in self._zeros.values():
            torch._foreach_zero_(zeros)  # as torch's optimizers do
        for pairs in self._copies.values():
            torch._foreach_copy_([place for place, _ in pairs], [source for _, source in pairs])
        kinds = list(self._numbers.values())
        arrays = [
            np.array(
                [value for _, values in numbers for value in values],
                np.int32 if numbers[0][0].dtype is torch.int32 else np.float32,
            )
            for numbers in kinds
        ]
        for numbers, there in zip(kinds, self._send(arrays), strict=True):
            parts = there.split([len(values) for _, values in numbers])
            torch._foreach_copy_([place for place, _ in numbers], list(parts))
