"""What a failing provider leaves behind: its memory is freed, and the device is asked if it works.

Most errors end with the call that raised them. Some CUDA errors (an illegal address, for one) stay:
every later call of the process raises them again, so nothing more can be measured in it.
"""

from __future__ import annotations

import gc
import traceback
from pathlib import Path

import torch

LONGEST = 160

# Stands for a provider where a case failed before any was at work, as with no room for operands.
EVERYONE = "every provider"


class DeviceLost(Exception):  # noqa: N818 - it says what happened
    """Nothing works on the device any more. `provider` was at work; `said` is its error's line."""

    def __init__(self, provider: str, said: str) -> None:
        super().__init__(f"the device stopped working with {provider}: {said}")
        self.provider = provider
        self.said = said


def first_line(error: BaseException) -> str:
    """Name an error and its first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return said if len(said) <= LONGEST else said[: LONGEST - 1] + "…"


def place(error: BaseException) -> str:
    """Say where it was raised, and the last line of what it says, where the first isn't all."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{where}, {lines[-1][:LONGEST]}" if len(lines) > 1 else where


def survive(provider: str, error: BaseException, device: torch.device) -> str:
    """Free what the failed calls held; return the error in one line. Raises `DeviceLost`."""
    said = first_line(error)
    traceback.clear_frames(error.__traceback__)  # their tensors would live as long as the error
    gc.collect()
    if not works(device):
        raise DeviceLost(provider, said)
    return said


def works(device: torch.device) -> bool:
    """Say whether the device still adds two numbers."""
    if device.type != "cuda":
        return True
    for _ in range(2):  # the first may still report what was reported before
        try:
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
            torch.zeros(1, device=device).add_(1).item()
        except torch.OutOfMemoryError:
            return True
        except RuntimeError:
            continue
        return True
    return False
