"""`aril demo` with a stand-in worker: what it prints, and that nothing of it is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from aril.demo.measure import JobTimes, StepCounts, percentile, read_histogram, summarise
from aril.demo.tenants import SAME_QUESTION, TENANTS
from tests.aril.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kafka

DEMO = [sys.executable, "-u", "-m", "tests.support.stand_in_demo"]
GONE_SECONDS = 30
INTERRUPTED = 130


class Demo:
    """A running demo and every process that was seen below it."""

    def __init__(self, *arguments: str, pause: float = 0.0) -> None:
        self.process = subprocess.Popen(
            [*DEMO, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=os.environ | {"STAND_IN_PAUSE": str(pause)},
            start_new_session=True,
        )
        self.below: set[psutil.Process] = set()
        self.told: list[str] = []

    def run_until(self, text: str) -> None:
        """Read its output until a line has `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(line)
            self.below |= set(psutil.Process(self.process.pid).children(recursive=True))
            if text in line:
                return
        pytest.fail("".join(self.told))

    def end(self) -> int:
        """Read the rest; return the exit code."""
        assert self.process.stdout is not None
        self.told.append(self.process.stdout.read())
        return self.process.wait(timeout=GONE_SECONDS)

    def kill(self) -> None:
        """Leave nothing behind, whatever the test found."""
        self.process.kill()
        for process in self.below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    """Collect demos so that they are ended."""
    started: list[Demo] = []
    yield started
    for demo in started:
        demo.kill()


def test_whole_demo(demos: list[Demo]) -> None:
    """Sixteen jobs of four tenants are answered, shown and counted; then nothing is left."""
    demo = Demo()
    demos.append(demo)
    demo.run_until("jobs of 4 tenants at once")
    assert demo.end() == 0
    told = "".join(demo.told)
    for tenant in TENANTS:
        for number, question in enumerate(tenant.questions, start=1):
            assert f"{tenant.name} {number}".ljust(12) + f" │ ? {question}" in told
    assert told.count(f"\n  {SAME_QUESTION}\n") == len(TENANTS)
    assert "all         3 + backbone    16" in told
    assert "16 steps of the model, each for 4.0 jobs on average (up to 16)" in told
    _, alive = psutil.wait_procs(demo.below, timeout=GONE_SECONDS)
    assert alive == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        pytest.param(signal.SIGINT, "one queue", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "broker", marks=pytest.mark.slow),
        (signal.SIGINT, "topics"),
        pytest.param(signal.SIGINT, "worker", marks=pytest.mark.slow),
        (signal.SIGINT, " │ "),
        pytest.param(signal.SIGTERM, "topics", marks=pytest.mark.slow),
        (signal.SIGTERM, " │ "),
        pytest.param(signal.SIGHUP, " │ ", marks=pytest.mark.slow),
    ],
)
def test_told_to_stop(demos: list[Demo], number: signal.Signals, moment: str) -> None:
    """Ctrl-C, kill or a closed terminal, at any stage, ends broker and worker with the demo."""
    demo = Demo(pause=0.5)
    demos.append(demo)
    demo.run_until(moment)
    demo.process.send_signal(number)
    assert demo.end() == INTERRUPTED
    assert "Traceback" not in "".join(demo.told)
    _, alive = psutil.wait_procs(demo.below, timeout=GONE_SECONDS)
    assert alive == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a death")
def test_killed(demos: list[Demo]) -> None:
    """Even kill -9 leaves neither broker nor worker behind."""
    demo = Demo(pause=0.5)
    demos.append(demo)
    demo.run_until(" │ ")
    demo.process.kill()
    _, alive = psutil.wait_procs(demo.below, timeout=GONE_SECONDS)
    assert len(demo.below) >= 2
    assert alive == []


def test_times_of_a_job() -> None:
    """Tokens of one record share the time since the record before; the first has none."""
    job = JobTimes(sent=10.0)
    job.arrived(10.5, 1)
    job.arrived(11.5, 2)
    summary = summarise([job])
    assert job.gaps == [0.5, 0.5]
    assert (summary.tokens, summary.first_p50, summary.gap_p95) == (3, 0.5, 0.5)
    assert summary.tokens_per_second == pytest.approx(2.0)
    assert summarise([]).first_p50 is None


def test_percentile_is_nearest_rank() -> None:
    """The percentile is one of the values, and None of nothing."""
    assert percentile(range(1, 101), 95) == 95
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([], 50) is None


def test_histogram_since() -> None:
    """Steps counted before the demo began do not count."""
    text = (
        '# HELP x\naril_step_rows_bucket{{le="8.0"}} {0}\naril_step_rows_bucket{{le="+Inf"}} {1}\n'
        "aril_step_rows_count {1}\naril_step_rows_sum {2}\n"
    )
    before = read_histogram(text.format(1, 2, 20), "aril_step_rows")
    after = read_histogram(text.format(5, 6, 40), "aril_step_rows")
    counted = after.since(before)
    assert (counted.steps, counted.mean, counted.most) == (4, 5.0, 8.0)
    assert StepCounts().mean is None
