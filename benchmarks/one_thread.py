"""One thread for each library: on a busy machine they would wait for each other's threads."""

from __future__ import annotations

import os
import statistics
import sys
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Collection

NUMPY_THREADS = "OPENBLAS_NUM_THREADS"
WANTED_OF_IDEAL = 1.3


def use_one_thread(module: str) -> None:
    """Hold torch to one thread; start the module anew where numpy had no chance to hear of it."""
    torch.set_num_threads(1)
    if os.environ.get(NUMPY_THREADS) != "1":
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | {NUMPY_THREADS: "1"})  # noqa: S606


def of_bare_products(ratios: Collection[float]) -> str:
    """Say how far from the bare grouped products the cases are."""
    within = sum(ratio <= WANTED_OF_IDEAL for ratio in ratios)
    return (
        f"Aril over the bare grouped products: {statistics.median(ratios):.2f} in the middle, "
        f"{max(ratios):.2f} at worst; within {WANTED_OF_IDEAL} in {within} of {len(ratios)}"
    )
