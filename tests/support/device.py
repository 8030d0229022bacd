"""Where the kernels' tests run, and how large their problems are there.

Cases are drawn on the host and checked there in fp64. Triton takes them on the GPU where there is
one, at sizes of real layers, else in its interpreter, at the smallest sizes that have several
tiles in every direction. The other paths are the CPU's and stay there.
"""

from __future__ import annotations

import os
from typing import TypeVar

import torch

Value = TypeVar("Value")

ON_GPU = torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1"
DEVICE = torch.device("cuda" if ON_GPU else "cpu")


def sized(tiny: Value, real: Value) -> Value:
    """Choose a size by where the kernels run."""
    return real if ON_GPU else tiny


def device_of(backend: str) -> torch.device:
    """Say where a backend's operands belong."""
    return DEVICE if backend == "triton" else torch.device("cpu")
