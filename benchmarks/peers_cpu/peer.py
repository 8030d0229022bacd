"""A peer's process: requests in, tokens and their times out, in lines (programs/wire.py)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from benchmarks.peers_cpu.machine import Spent, peak_megabytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers_cpu.workload import Asked

PROGRAMS = Path(__file__).parent / "programs"


class Answered(NamedTuple):
    """One run of a case: of each request the tokens, and when each came, in seconds."""

    ids: list[list[int]]
    times: list[list[float]]
    seconds: float
    foreign: float  # share of the machine that others took

    @property
    def tokens(self) -> int:
        """How many were made."""
        return sum(map(len, self.ids))

    @property
    def first(self) -> float:
        """Median seconds to the first token."""
        return median(times[0] for times in self.times)

    def gap(self, part: float) -> float:
        """Return a quantile of the seconds between two tokens of a request; 0 without any."""
        gaps = sorted(b - a for times in self.times for a, b in pairwise(times))
        return gaps[min(len(gaps) - 1, int(part * len(gaps)))] if gaps else 0.0


class Peer:
    """One way to serve, ready to be asked; `close` ends its process."""

    def __init__(
        self,
        name: str,
        program: str,
        words: Sequence[str],
        *,
        python: Path,
        logs: Path,
        path: str = "",
    ) -> None:
        """Start `program` by an interpreter. RuntimeError where it ends instead of getting ready.

        `path` goes before what the interpreter imports from.
        """
        self.name = name
        self._log = logs / f"{name.replace(' ', '-')}.log"
        environment = {
            "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": f"{path}:{PROGRAMS}",
            "HOME": str(logs),  # nobody's settings
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "2",
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603 - programs of this folder
                [python, PROGRAMS / f"{program}.py", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self._tree = psutil.Process(self._process.pid)
        self.version = str(self._read()["version"])

    def ask(self, requests: Sequence[Asked]) -> Answered:
        """Have all requests answered; RuntimeError where the peer ends or leaves tokens out."""
        before, begun = Spent.now(self._tree), time.perf_counter()
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(json.dumps([each._asdict() for each in requests]) + "\n")
        self._process.stdin.flush()
        found = self._read()
        spent = time.perf_counter() - begun
        foreign = Spent.now(self._tree).foreign_share(before, spent)
        answered = Answered(found["ids"], found["times"], found["seconds"], foreign)
        if [len(ids) for ids in answered.ids] != [each.new for each in requests]:
            raise RuntimeError(f"{self.name} left tokens out: {self._log}")
        return answered

    def peak_megabytes(self) -> float:
        """Return the most memory that it has had."""
        return peak_megabytes(self._tree)

    def close(self) -> None:
        """End the process and those that it started."""
        assert self._process.stdin is not None  # noqa: S101 - as above
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            print(f"{self.name} does not end: killed", file=sys.stderr)
            for each in (*self._tree.children(recursive=True), self._tree):
                each.kill()
        self._end()

    def _read(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self._end()}: {self._log}")
        return json.loads(line)

    def _end(self) -> int:
        with self._process:  # closes its pipes, and waits
            return self._process.wait()
