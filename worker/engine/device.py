"""Which GPU the calls of a thread go to, or how many of a CPU's threads."""

from __future__ import annotations

import torch


def use_device(device: torch.device) -> None:
    """Let what this thread launches run on a device.

    PyTorch keeps the current one for each thread, and it begins as the first: on any other a
    kernel would be launched beside its tensors. Where no number is given, nothing. On a CPU how
    many threads products have is kept for each thread likewise, by OpenMP: oneDNN's begin with all
    cores until PyTorch is asked for the number that was set. Bits depend on it.
    """
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    elif device.type == "cpu":
        torch.get_num_threads()
