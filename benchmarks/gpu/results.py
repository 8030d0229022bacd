"""Where the figures go: rows of `benchmarks.record`, with the GPU's name and what ran on it."""

from __future__ import annotations

import platform
import statistics
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks import record

if TYPE_CHECKING:
    from collections.abc import Sequence

REHEARSAL = "REHEARSAL, no result: "


@dataclass
class Results:
    """The rows of one run, written after each case so that a run cut short leaves what it had."""

    device: torch.device
    folder: Path
    rehearsal: bool
    rows: dict[str, list[record.Row]] = field(default_factory=dict)

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
        ordered = sorted(samples)
        last = len(ordered) - 1
        mark = REHEARSAL if self.rehearsal else ""
        self.rows.setdefault(question, []).append(
            record.Row(
                question=question,
                provider=provider,
                metric=metric,
                x=str(x),
                p50=statistics.median(ordered),
                p20=ordered[round(0.2 * last)],
                p80=ordered[round(0.8 * last)],
                unit=unit,
                config=mark + config,
                device=mark + device_name(self.device),
                versions=versions(),
            )
        )

    def write(self) -> None:
        """Write one CSV a question."""
        for question, rows in self.rows.items():
            name = f"rehearsal_{question}" if self.rehearsal else question
            record.write(name, rows, self.folder)


def results_folder(given: str | None, *, rehearsal: bool) -> Path:
    """Choose where CSVs go: a rehearsal's never go where results are kept."""
    if rehearsal:
        return Path(tempfile.mkdtemp(prefix="aril-rehearsal-"))
    return Path(given) if given else record.RESULTS


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
