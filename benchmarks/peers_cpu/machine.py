"""How much of the machine others took while a peer was measured."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

import psutil

CORES = os.cpu_count() or 1


class Spent(NamedTuple):
    """CPU seconds since boot: of the whole machine, and of one process and its children."""

    everybody: float
    own: float

    @classmethod
    def now(cls, process: psutil.Process) -> Spent:
        """Read both."""
        return cls(_busy(), _tree(process))

    def foreign_share(self, before: Spent, seconds: float) -> float:
        """Return the share of all cores that others took in the `seconds` since `before`."""
        foreign = self.everybody - before.everybody - (self.own - before.own)
        return min(1.0, max(0.0, foreign) / (seconds * CORES))  # the kernel counts in hundredths


def wait_for_quiet(share: float, patience: float, window: float = 1.0) -> None:
    """Wait until no more than a share of the machine is in use, at most `patience` seconds."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        before = _busy()
        time.sleep(window)
        if (_busy() - before) / (window * CORES) <= share:
            return


def peak_megabytes(process: psutil.Process) -> float:
    """Return the most memory that a process and its children had, in MB; summed over them."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        with open(f"/proc/{each.pid}/status", encoding="ascii") as file:  # noqa: PTH123 - not a path of ours
            lines = dict(line.split(":", 1) for line in file)
        total += int(lines.get("VmHWM", "0").split()[0]) * 1024
    return total / 1e6


def _busy() -> float:
    spent = psutil.cpu_times()
    return float(sum(spent) - spent.idle - spent.iowait - spent.guest - spent.guest_nice)


def _tree(process: psutil.Process) -> float:
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        spent = each.cpu_times()
        total += spent.user + spent.system
    return total
