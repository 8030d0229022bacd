"""Which GPU the calls of a thread go to."""

from __future__ import annotations

import torch


def use_device(device: torch.device) -> None:
    """Let what this thread launches run on a device.

    PyTorch keeps the current one for each thread, and it begins as the first: on any other a
    kernel would be launched beside its tensors. On a CPU, or where no number is given, nothing.
    """
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
