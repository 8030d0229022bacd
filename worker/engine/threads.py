"""How many threads a step has on a CPU, and how they wait for each other.

A step is some hundred short products, and between two of them threads spin: libgomp's for
milliseconds, OpenBLAS's (numpy's) for as long. That pays on an idle machine alone. Beside any other
process, another worker for one, a spinning thread takes the core from the thread that all wait for
(docs/benchmarks.md, "Workers that share a machine"). So torch's spin for microseconds and then
sleep, and numpy, which has the small products only, has one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from aril.worker.engine.cgroups import ROOT, groups_of

if TYPE_CHECKING:
    from pathlib import Path

SPINS = "300"  # turns of a loop: about as long as a wake-up takes
CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # an operator who names one of them has decided
NAMES = ("quota", "period")


def bound_spinning() -> None:
    """Let threads sleep soon. Call this before torch and numpy are imported: they read it once."""
    if not any(name in os.environ for name in CHOSEN):
        os.environ[CHOSEN[0]] = SPINS
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def use_threads(asked: int) -> int:
    """Give torch that many threads, for 0 as many as there are cores to run them; return it.

    Torch counts the cores that this process may be put on. A container's quota is no such limit:
    the kernel lets all threads run and then stops them all for the rest of each period.
    """
    import torch  # noqa: PLC0415 - reads what `bound_spinning` sets

    threads = asked or torch.get_num_threads()
    if not asked and (quota := cpu_quota()) is not None:
        threads = min(threads, max(1, int(quota)))
    torch.set_num_threads(threads)
    return threads


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many cores' time the process's control groups allow it, None without a limit.

    A group is bound by those it lies in, so the least counts.
    """
    found = [quota for group in groups_of("cpu", root) if (quota := _quota_of(group)) is not None]
    return min(found, default=None)


def _quota_of(group: Path) -> float | None:
    """Read one group's limit; "max" or -1 says that there is none."""
    with suppress(OSError, ValueError):
        quota, period = map(int, (group / "cpu.max").read_text().split())
        return quota / period
    with suppress(OSError, ValueError):
        quota, period = (int((group / f"cpu.cfs_{each}_us").read_text()) for each in NAMES)
        return quota / period if quota > 0 else None
    return None
