"""How much memory is left, as Linux tells it; quotas of the processor are in test_threads.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aril.worker.engine.cgroups import free_memory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MEMINFO = "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    2000 kB\n"
V2 = "0::/pods/worker\n"
V1 = "4:memory:/docker/a1\n3:cpu,cpuacct:/docker/a1\n"
V2_GROUP = {
    "pods/worker/memory.max": "1000000",
    "pods/worker/memory.current": "700000",
    "pods/worker/memory.stat": "anon 500000\ninactive_file 80000\nactive_file 20000\n",
}
V1_GROUP = {
    "memory/docker/a1/memory.limit_in_bytes": "1000000",
    "memory/docker/a1/memory.usage_in_bytes": "900000",
    "memory/docker/a1/memory.stat": "total_inactive_file 0\ntotal_active_file 50000\n",
}


@pytest.mark.parametrize(
    ("own", "limits", "free"),
    [
        (V2, {}, 2000 << 10),
        (V2, V2_GROUP, 400_000),
        (V2, V2_GROUP | {"pods/worker/memory.max": "max"}, 2000 << 10),
        (V2, V2_GROUP | {"pods/worker/memory.max": "600000"}, 0),
        (
            V2,
            V2_GROUP
            | {"pods/memory.max": "5000", "pods/memory.current": "1000", "pods/memory.stat": ""},
            4_000,
        ),
        (V2, {"memory.max": "5000", "memory.current": "1000"}, 4_000),  # nothing told of files
        (V1, V1_GROUP, 150_000),
        (V1, V1_GROUP | {"memory/docker/a1/memory.limit_in_bytes": str(2**63 - 4096)}, 2000 << 10),
        ("3:cpu:/docker/a1\n", V1_GROUP, 2000 << 10),
    ],
)
def test_the_least_that_is_left_counts(
    tmp_path: Path, own: str, limits: Mapping[str, str], free: int
) -> None:
    """The machine's or a group's; what files take of a group's memory it gives back."""
    told = {f"sys/fs/cgroup/{name}": text for name, text in limits.items()}
    files = told | {"proc/self/cgroup": own, "proc/meminfo": MEMINFO}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path) == free


def test_where_nothing_tells(tmp_path: Path) -> None:
    """As on macOS; nor does what cannot be read as a number."""
    assert free_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemAvailable: plenty\n")
    assert free_memory(tmp_path) is None
