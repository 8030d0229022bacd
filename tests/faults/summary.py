"""What a run came to, as rows of the form in which all measurements are kept."""

from __future__ import annotations

import resource
from collections import Counter
from typing import TYPE_CHECKING, Final

from benchmarks.record import Row, write
from tests.support.brokers import choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.faults.report import Report

# Every rule of the checker, by what a tenant or an operator would call its breach.
BREACHES: Final[dict[str, tuple[str, ...]]] = {
    "lost": ("terminal", "liveness", "length", "agreement", "lost_view"),
    "doubled": ("index", "after_terminal"),
    "altered": ("content", "text", "adapter"),
    "form_broken": ("form",),
    "mixed": ("unknown_job", "key", "two_writers", "epoch"),
    "wrong_end": ("error", "refusal", "early"),
    "reset_unexplained": ("reset",),
    "reset_untold": ("untold",),
    "committed_early": ("committed",),
    "others_held_up": ("stood_still",),
    "dead_letters_wrong": ("poison",),
    "workers_and_faults": ("fleet",),
}
KIB_A_MIB: Final = 1_024


def write_summary(
    path: Path,
    report: Report,
    *,
    config: str,
    faults: Mapping[str, int],
    figures: Mapping[tuple[str, str], Sequence[float]],
    events: Mapping[str, int],
) -> None:
    """Write a run's figures to a CSV; `figures` are by name and unit."""
    rows = [
        *(_row(config, "run", name, unit, values) for (name, unit), values in figures.items()),
        *_counted(config, "counted", report.counts),
        *_counted(config, "fault", faults),
        *_counted(config, "broken", breaches(report)),
        *_counted(config, "worker_event", events),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path.stem, rows, path.parent)


def breaches(report: Report) -> Counter[str]:
    """Count broken rules by kind of breach, those that were kept with 0."""
    found = Counter(dict.fromkeys(BREACHES, 0))
    kinds = {rule: kind for kind, rules in BREACHES.items() for rule in rules}
    found.update(kinds[each.rule] for each in report.violations)
    return found


def memory_mib() -> float:
    """Return the most memory that this process, clients and checker, has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_A_MIB


def _counted(config: str, metric: str, found: Mapping[str, int]) -> Iterator[Row]:
    for name, count in found.items():
        yield _row(config, metric, name.replace(" ", "_"), "times", [count])


def _row(config: str, metric: str, x: str, unit: str, values: Sequence[float]) -> Row:
    chosen = choice()
    return Row.of(
        values,
        question="faults",
        provider="aril",
        metric=metric,
        x=x,
        unit=unit,
        config=f"{config}; kafka {chosen.kind} {chosen.why}",
    )
