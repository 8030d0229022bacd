"""How the settings are grouped in `--help` and in `aril config`."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

# The field each group begins with, in the order of the class.
STARTS: Final = {
    "queue": "bootstrap",
    "what is served": "model",
    "batching": "window_ms",
    "time": "max_job_age",
    "watching it": "http",
}


def worker_groups() -> dict[str, list[str]]:
    """Return the names of all settings, by group, in the order they are declared."""
    from aril.worker.settings import WorkerSettings  # noqa: PLC0415 - 0.15 s, only where it is needed

    names = list(WorkerSettings.model_fields)
    at = [names.index(first) for first in STARTS.values()]
    spans = pairwise([*at, len(names)])
    return {title: names[begin:end] for title, (begin, end) in zip(STARTS, spans, strict=True)}
