"""How many threads, and how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from aril.worker.engine import threads
from aril.worker.engine.threads import bound_spinning, cpu_quota, use_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def groups(root: Path, own: str, limits: Mapping[str, str]) -> Path:
    """Write what Linux tells of a process's control groups."""
    for name, text in {"proc/self/cgroup": own, **limits}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "0::/kubepods/pod1/worker\n"
V1 = "4:memory:/docker/a1\n3:cpu,cpuacct:/docker/a1\n2:cpuset:/docker/a1\n"


@pytest.mark.parametrize(
    ("own", "limits", "quota"),
    [
        (V2, {"kubepods/pod1/worker/cpu.max": "150000 100000"}, 1.5),
        (V2, {"kubepods/pod1/worker/cpu.max": "max 100000"}, None),
        (V2, {"kubepods/pod1/worker/cpu.max": "400000 100000", "kubepods/cpu.max": "1 1"}, 1.0),
        (V2, {"cpu.max": "50000 100000"}, 0.5),  # a container that sees its own group as the root
        (V2, {"kubepods/pod1/cpu.max": "nonsense"}, None),
        (V2, {}, None),
        (
            V1,
            {
                "cpu,cpuacct/docker/a1/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/docker/a1/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
        (
            "3:cpuacct,cpu:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"},
            2.0,
        ),
        ("1:name=systemd:/\n", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_the_least_quota_of_all_groups_counts(
    tmp_path: Path, own: str, limits: Mapping[str, str], quota: float | None
) -> None:
    """Both versions of cgroups, groups within groups, no limit, and files that say nothing."""
    told = {f"sys/fs/cgroup/{name}": text for name, text in limits.items()}
    assert cpu_quota(groups(tmp_path, own, told)) == quota


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    """As macOS, where /proc is not there."""
    assert cpu_quota(tmp_path) is None


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch have two, and give it back what it had."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("asked", "quota", "used"),
    [(0, None, 2), (0, 1.5, 1), (0, 0.2, 1), (0, 8.0, 2), (3, 1.0, 3)],
)
def test_as_many_threads_as_cores_or_as_asked(
    monkeypatch: pytest.MonkeyPatch, asked: int, quota: float | None, used: int
) -> None:
    """A quota takes threads away and never adds any; who asks gets what was asked for."""
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    assert use_threads(asked) == torch.get_num_threads() == used


@pytest.mark.parametrize("chosen", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "PASSIVE"}])
def test_what_the_operator_chose_stays(
    monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str]
) -> None:
    """One of the two variables is enough; numpy's threads are decided apart."""
    monkeypatch.setattr(os, "environ", environment := dict(chosen))
    bound_spinning()
    assert environment == {**chosen, "OPENBLAS_NUM_THREADS": "1"}
    environment["OPENBLAS_NUM_THREADS"] = "2"
    bound_spinning()
    assert environment["OPENBLAS_NUM_THREADS"] == "2"


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")
def test_a_worker_that_loads_a_model_has_bounded_spinning() -> None:
    """Libgomp tells what it has read; torch and numpy were not imported before that was set."""
    code = """
import sys, aril.worker.app
from aril.worker.loading import ModelError, load_model
from aril.worker.settings import WorkerSettings
assert not {"torch", "numpy"} & sys.modules.keys()
try:
    load_model(WorkerSettings(model="nowhere"))
except ModelError:
    assert "torch" in sys.modules
"""
    clean = {name: value for name, value in os.environ.items() if name not in threads.CHOSEN} | {
        "OMP_DISPLAY_ENV": "VERBOSE"
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean, check=True, capture_output=True, text=True
    )
    assert f"GOMP_SPINCOUNT = '{threads.SPINS}'" in done.stderr
