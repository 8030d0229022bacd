"""`aril demo` with a worker that has no model: `python -m tests.support.stand_in_demo [flags]`."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from aril.cli import main
from aril.demo import run, worker_process

if __name__ == "__main__":
    stand_in = (sys.executable, "-m", "tests.support.stand_in_worker")
    with (
        mock.patch.object(worker_process, "COMMAND", stand_in),
        mock.patch.object(run, "ensure_model", return_value=Path("/no/model/is/read")),
    ):
        sys.exit(main(["demo", *sys.argv[1:]]))
