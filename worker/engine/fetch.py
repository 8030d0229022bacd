"""What the host reads of a device: asked for behind a step, waited for when it is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Fetch:
    """Numbers on their way to the host. Whatever the device is asked later is not waited for."""

    def __init__(self, values: Tensor) -> None:
        """Ask for them; on a CPU they are there already."""
        self._values = values
        self._arrival: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            # Pinned, or the host would wait here.
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrival = torch.cuda.Event()
            self._arrival.record(torch.cuda.current_stream(values.device))

    def read(self) -> list[float]:
        """Wait until they have come; also where there are none, for what they stand behind."""
        if self._arrival is not None:
            self._arrival.synchronize()
        found: list[float] = self._values.tolist()
        return found
