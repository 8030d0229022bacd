"""A worker without a model: the real service around an engine that takes so long for each step.

As `python -m tests.support.paced_worker SECONDS` it takes its settings from `ARIL_*`.
"""

from __future__ import annotations

import functools
import sys

from aril.worker.app import run_worker
from aril.worker.settings import load_settings
from benchmarks.instant import load_instant

if __name__ == "__main__":
    pace = float(sys.argv[1])
    sys.exit(run_worker(load_settings().settings, load=functools.partial(load_instant, pace=pace)))
