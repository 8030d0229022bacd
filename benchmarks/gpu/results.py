"""Where the figures go: rows of `benchmarks.record`, with the GPU's name and what ran on it."""

from __future__ import annotations

import hashlib
import platform
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks import record
from benchmarks.gpu.failures import EVERYONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.gpu.failures import DeviceLost

REHEARSAL = "REHEARSAL, no result: "
ROOT = Path(__file__).parents[2]
# What a figure depends on, beside the peers' sources.
SOURCES = (
    "kernels",
    "benchmarks/gpu",
    "benchmarks/record.py",
    "tests/benchmarks/test_gpu_kernels.py",
    "tests/kernels",
)
# These judge what was measured, or measure none of the tables.
APART = ("verdict.py", "engine.py", "choices.py", "sgmv_choices.py", "attention_choices.py")
LOST = "device lost: "
# A question's own rows by config and x.
Index = dict[tuple[str, str], list[record.Row]]


@dataclass
class Results:
    """The rows of a table, of this run and of those it resumes, written after each case.

    `code` marks what was measured: rows of other code count as not there, see `code_version`.
    """

    device: torch.device
    folder: Path
    rehearsal: bool
    code: str = ""
    rows: dict[str, list[record.Row]] = field(default_factory=dict)
    _first: int = field(default=0, init=False)  # where the rows of the case in hand begin
    _unwritten: set[str] = field(default_factory=set, init=False)
    _index: dict[str, Index] = field(default_factory=dict, init=False)

    def add(
        self,
        question: str,
        provider: str,
        metric: str,
        x: object,
        samples: Sequence[float],
        *,
        unit: str,
        config: str,
    ) -> None:
        """Keep one figure."""
        device, versions = self.origin
        self._changed(question).append(
            record.Row.of(
                samples,
                question=question,
                provider=provider,
                metric=metric,
                x=x,
                unit=unit,
                config=self.mark + config,
                device=device,
                versions=versions,
            )
        )

    @property
    def mark(self) -> str:
        """What stands before a rehearsal's figures."""
        return REHEARSAL if self.rehearsal else ""

    @cached_property
    def origin(self) -> tuple[str, str]:
        """Device and versions of this run's rows."""
        code = f" code {self.code}" if self.code else ""
        return self.mark + device_name(self.device), versions() + code

    def own(self, question: str) -> list[record.Row]:
        """Return the rows of this device and this code."""
        rows = self.rows.get(question, [])
        return [row for row in rows if (row.device, row.versions) == self.origin]

    def resume(self, folder: Path, questions: Sequence[str]) -> None:
        """Take over the rows that earlier runs left in a folder, of whatever code and device."""
        for question in questions:
            rows = record.read(self._name(question), folder)
            if rows:
                self.replace(question, rows)

    def replace(self, question: str, rows: list[record.Row]) -> None:
        """Put other rows in place of a question's."""
        self._changed(question)[:] = rows

    def done(
        self,
        question: str,
        config: str,
        x: object,
        metric: str | None = None,
        provider: str | None = None,
    ) -> bool:
        """Say whether a case was measured here by this code; or a metric, or a provider, in it."""
        if EVERYONE in self.lost(question, config, x):
            return True  # it would only stop the device again
        return any(
            (metric is None or row.metric == metric)
            and (provider is None or row.provider == provider)
            for row in self._of_case(question, config, x)
            if not row.metric.startswith(LOST)
        )

    def lost(self, question: str, config: str, x: object) -> set[str]:
        """Name those with which the device stopped working in this case."""
        return {
            row.provider
            for row in self._of_case(question, config, x)
            if row.metric.startswith(LOST)
        }

    def begin(self, question: str, config: str, x: object) -> None:
        """Make room for a case: what other code measured of it on this device is outdated."""
        device, versions = self.origin
        rows = self._changed(question)
        rows[:] = [
            row
            for row in rows
            if (row.config, row.x, row.device) != (self.mark + config, str(x), device)
            or row.versions == versions
        ]
        self._first = len(rows)

    def lose(self, question: str, config: str, x: object, lost: DeviceLost) -> None:
        """Put one row, with who was at work, in place of the case's; write what there is."""
        del self._changed(question)[self._first :]
        self.add(question, lost.provider, LOST + lost.said, x, [1], unit="1", config=config)
        self.write()

    def write(self) -> None:
        """Write one CSV for each question that has new rows."""
        for question in sorted(self._unwritten):
            if self.rows[question]:
                record.write(self._name(question), self.rows[question], self.folder)
        self._unwritten.clear()

    def _changed(self, question: str) -> list[record.Row]:
        self._unwritten.add(question)
        self._index.pop(question, None)
        return self.rows.setdefault(question, [])

    def _of_case(self, question: str, config: str, x: object) -> list[record.Row]:
        """Look a case up: each is asked for several times, among tens of thousands of rows."""
        if question not in self._index:
            index: Index = {}
            for row in self.own(question):
                index.setdefault((row.config, row.x), []).append(row)
            self._index[question] = index
        return self._index[question].get((self.mark + config, str(x)), [])

    def _name(self, question: str) -> str:
        return f"rehearsal_{question}" if self.rehearsal else question


def results_folder(given: str | None, *, rehearsal: bool) -> Path:
    """Choose where CSVs go: a rehearsal's never go where results are kept."""
    if rehearsal:
        return Path(tempfile.mkdtemp(prefix="aril-rehearsal-"))
    return Path(given) if given else record.RESULTS


def code_version(peers: Path, root: Path = ROOT) -> str:
    """Return a digest of the kernels, of what measures them, and of the peers' sources."""
    files = [path for name in SOURCES for path in _sources(root / name) if path.name not in APART]
    files += [path for name in ("vllm", "sglang") for path in _sources(peers / name)]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _sources(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return sorted(path for kind in ("*.py", "*.json") for path in place.rglob(kind))


def device_name(device: torch.device) -> str:
    """Name the GPU, or say that it is none."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{record.device()}, Triton's interpreter"


def versions() -> str:
    """Name the versions that matter for a kernel."""
    named = [f"python {platform.python_version()}"]
    for package in ("torch", "triton"):
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            named.append(f"{package} unknown")
    if torch.version.cuda:
        named.append(f"cuda {torch.version.cuda}")
    return " ".join(named)
