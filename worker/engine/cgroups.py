"""The control groups that this process lies in, of either version, and how much memory is left.

docs.kernel.org: admin-guide/cgroup-v2, admin-guide/cgroup-v1/memory, scheduler/sched-bwc.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")
# Files of limit, usage and detail, and what of the usage are files' pages, given back when asked.
_MEMORY: Final = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
)


def groups_of(controller: str, root: Path = ROOT) -> list[Path]:
    """Return the folders of the process's groups that may limit it, and of those they lie in.

    None without Linux.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Of version 1 a folder may be called by its controllers in another order, or by one.
        for name in {controllers, controller} if controllers else {""}:
            mount = root / "sys/fs/cgroup" / name
            folder = mount / own.lstrip("/")
            for group in (folder, *folder.parents):
                found.append(group)
                if group == mount:
                    break
    return found


def free_memory(root: Path = ROOT) -> int | None:
    """Return how many bytes this process can still take; None where nothing tells.

    What the machine has available, or less where a group's limit leaves less.
    """
    found = [left for group in groups_of("memory", root) if (left := _left_in(group)) is not None]
    with suppress(OSError, ValueError, IndexError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        line = next((each for each in lines if each.startswith("MemAvailable:")), "")
        found.append(int(line.split()[1]) << 10)
    return min(found, default=None)


def _left_in(group: Path) -> int | None:
    """Return what a group's limit leaves; "max", and numbers beyond all memory, are no limit."""
    for limit, usage, cached in _MEMORY:
        with suppress(OSError, ValueError):
            most, used = (int((group / name).read_text()) for name in (limit, usage))
            return max(0, most - used + _cached_in(group, cached))
    return None


def _cached_in(group: Path, names: tuple[str, ...]) -> int:
    """Return what a group's files take; 0 where that is not told: the limit holds all the same."""
    with suppress(OSError, ValueError):
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return sum(int(stat.get(name, 0)) for name in names)
    return 0
