"""Logs: one JSON object a line off the terminal, in one form for libraries too."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
import structlog

from aril.worker.observe.logs import SAMPLE_LINES, SAMPLE_SECONDS, Repeats, Sampled
from tests.support.canary_jobs import MARK

SCRIPT = """
import logging
from aril.worker.observe.logs import configure_logs, get_logger
from aril.worker.settings import load_settings
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


def told(repeats: Repeats, name: str, message: str, *values: object, at: float) -> str | None:
    """Return what is logged of a message, None if nothing is."""
    record = logging.LogRecord(name, logging.ERROR, "", 0, message, values, None)
    record.created = at
    return record.getMessage() if repeats.filter(record) else None


def test_a_library_that_repeats_itself_is_told_once_in_a_while() -> None:
    """One line of a kind, whatever its values, then the number of those that were held back."""
    repeats = Repeats(10)
    assert told(repeats, "aiokafka.conn", "no %s", "a", at=0) == "no a"
    assert told(repeats, "aiokafka.conn", "no %s", "b", at=1) is None
    assert told(repeats, "aiokafka.conn", "other", at=2) == "other"
    assert told(repeats, "aiokafka.client", "no %s", "b", at=3) == "no b"
    assert told(repeats, "aiokafka.conn", "no %s", "c", at=9.9) is None
    assert told(repeats, "aiokafka.conn", "no %s", "d", at=10) == "no d [and 2 like it before]"
    assert told(repeats, "aiokafka.conn", "no %s", "e", at=20) == "no e"


def test_librdkafka_is_told_once_in_a_while_whatever_its_numbers() -> None:
    """It fills them in itself; what it says otherwise is another kind."""
    repeats, form = Repeats(10), "%s [%s] %s"
    texts = ["refused (after 0ms)", "refused (after 12ms)", "no such certificate", "refused (1ms)"]
    lines = [
        told(repeats, "confluent_kafka", form, "FAIL", "w#1", text, at=at)
        for at, text in enumerate(texts)
    ]
    assert [line is None for line in lines] == [False, True, False, False]
    last = told(repeats, "confluent_kafka", form, "FAIL", "w#1", "refused (after 3ms)", at=11)
    assert last == "FAIL [w#1] refused (after 3ms) [and 1 like it before]"


def test_our_own_lines_are_all_told() -> None:
    """What the worker says of a job is never held back."""
    repeats = Repeats(10)
    assert [told(repeats, "aril.worker.lifecycle", "job", at=0) for _ in range(3)] == ["job"] * 3


def test_a_flood_is_sampled_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what tenants bring about so many lines are logged in a while, then how many were not."""
    now = [0.0]
    monkeypatch.setattr("aril.worker.observe.logs.time.monotonic", lambda: now[0])
    with structlog.testing.capture_logs() as told:
        sampled = Sampled(structlog.get_logger("test"))
        for _ in range(SAMPLE_LINES + 5):
            sampled.warning("put_aside", reason="x")
        assert len(told) == SAMPLE_LINES
        now[0] += SAMPLE_SECONDS
        sampled.warning("put_aside", reason="x")
    assert told[-1]["held_back"] == 5


@pytest.mark.parametrize("form", ["json", "console"])
def test_nothing_that_a_tenant_wrote_is_logged(form: str) -> None:
    """Templates, tokenizers, stores, the engine, records: whatever raises, and whatever it says.

    Nor is it in what a tenant is told of a fault of ours, in the metrics or in the probes.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.canary_jobs", form],
        capture_output=True,
        text=True,
        check=True,
    )
    for event in (
        "prepare_failed",
        "output_failed",
        "reply_failed",
        "submit_failed",
        "engine_failed",
        "unhandled_exception",
        "record_put_aside",
    ):
        assert event in done.stderr
    assert "Input/output error" in done.stderr
    for told in (done.stdout, done.stderr):
        assert MARK not in told
        assert MARK[:-1] not in told
