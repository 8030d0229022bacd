"""Logs: one JSON object a line off the terminal, in one form for libraries too."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging
from worker.logs import configure_logs, get_logger
from worker.settings import load_settings
configure_logs(load_settings(flags={"log_level": "info"}).settings)
get_logger("worker.test").info("ours", job="j1", tenant="acme")
get_logger("worker.test").debug("hidden")
logging.getLogger("library").warning("theirs %s", 1)
try:
    raise ValueError("broken")
except ValueError:
    get_logger("worker.test").exception("failed")
"""


def test_every_line_is_an_object_with_what_was_bound() -> None:
    """Our events, a library's messages and tracebacks all parse, with level, time and fields."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    ours, theirs, failed = (json.loads(line) for line in done.stderr.splitlines())
    assert (ours["event"], ours["job"], ours["tenant"]) == ("ours", "j1", "acme")
    assert (ours["level"], theirs["event"], theirs["level"]) == ("info", "theirs 1", "warning")
    assert all("timestamp" in each for each in (ours, theirs, failed))
    assert failed["exception"][0]["exc_type"] == "ValueError"
