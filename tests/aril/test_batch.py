"""`aril batch` as a process, against a broker and a worker that answers with its prompt."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from aril.arguments import FAILED, INTERRUPTED, OK, USAGE
from aril.batches.tally import Pace, Tally
from aril.batches.window import Window
from aril.cli import main
from aril.commands.batch_progress import Bar, Lines, display_for, short, told, watch
from tests.aril.conftest import ROOT
from tests.support.batch_site import chat_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tests.aril.conftest import Cluster, RunAril
    from tests.support.fake_worker import FakeWorker


@pytest.fixture
async def worker(cluster: Cluster) -> AsyncIterator[FakeWorker]:
    """Run a worker that answers every job with its own words."""
    async with cluster.worker() as worker:
        yield worker


def write(path: Path, lines: Sequence[Any]) -> Path:
    """Write a file of lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path) -> list[Any]:
    """Read one."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.kafka
@pytest.mark.usefixtures("worker")
async def test_a_file_is_answered(cluster: Cluster, aril: RunAril, tmp_path: Path) -> None:
    """Every line in its form, failures counted by code; the same command again asks nothing."""
    lines = [
        chat_line("k1", "one two", model="terse", max_tokens=1),
        {"id": "mine", "prompt": "three"},
        chat_line("k2", "four", top_p=2),
    ]
    out = tmp_path / "out.jsonl"
    command = ("batch", "run", str(write(tmp_path / "in.jsonl", lines)), "-o", str(out))
    done = await aril(*command, "-t", "acme", env=cluster.env)
    assert done.code == FAILED
    assert done.err == ("aril: batch: 3 lines: 2 answered, 1 failed (limit_exceeded 1)\n")
    assert done.out == ""
    chat, failed = sorted(
        (each for each in read(out) if "custom_id" in each), key=lambda each: each["custom_id"]
    )
    (choice,) = chat["response"]["body"]["choices"]
    assert (choice["message"]["content"], choice["aril"]["adapter"]) == ("one", "terse")
    assert failed["error"]["param"] == "top_p"
    (ours,) = (each for each in read(out) if "custom_id" not in each)
    assert (ours["id"], ours["text"]) == ("mine", "three")
    before = out.read_bytes()
    again = await aril(*command, "-q", env=cluster.env | {"ARIL_TENANT": "acme"})
    assert (again.code, again.out, again.err) == (FAILED, "", "")
    assert out.read_bytes() == before


class Interrupted:
    """`aril batch run` of five lines that nobody answers, two at once, and signals for it."""

    def __init__(self, cluster: Cluster, worker: FakeWorker, folder: Path, stem: str) -> None:
        self._cluster, self._worker, self._stem = cluster, worker, stem
        self.out = folder / "out.jsonl"
        lines = [chat_line(f"k{at}", f"{stem} {at}") for at in range(5)]
        source = write(folder / "in.jsonl", lines)
        self.command = ["batch", "run", str(source), "-o", str(self.out)]
        self.command += ["-t", "acme", "--concurrency", "2"]

    def asked(self) -> set[str]:
        """Return the ids that its lines were asked under."""
        return {
            each.id
            for each in self._worker.asked.values()
            if each.messages and self._stem in (each.messages[-1].text or "")
        }

    async def run(self, *, signals: int) -> tuple[int | None, list[str]]:
        """Interrupt it when two jobs run; return exit code and what it said."""
        self._worker.pause = 60.0
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "aril", *self.command,
            stderr=subprocess.PIPE, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | self._cluster.env,
        )  # fmt: skip
        assert process.stderr is not None
        said = []
        try:
            async with asyncio.timeout(120):
                await self._worker.until(lambda: len(self.asked()) == 2)
                for _ in range(signals):
                    process.send_signal(signal.SIGINT)
                    said.append(await process.stderr.readline())
                rest, code = await process.stderr.read(), await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        self._worker.pause = 0.0
        return code, [line.decode().rstrip() for line in (*said, *rest.splitlines())]


@pytest.mark.kafka
async def test_ctrl_c_leaves_what_runs(
    cluster: Cluster, worker: FakeWorker, aril: RunAril, tmp_path: Path
) -> None:
    """Nothing is cancelled, it says what is left, and the same command goes on."""
    batch = Interrupted(cluster, worker, tmp_path, "left")
    code, said = await batch.run(signals=1)
    assert code == INTERRUPTED
    assert said == [
        "aril: batch: stopping; once more cancels what runs",
        "aril: batch: 2 jobs go on; the same command finds their answers",
        "aril: batch: 5 lines: 0 answered, 5 not yet",
    ]
    before = batch.asked()
    done = await aril(*batch.command, env=cluster.env)
    assert (done.code, len(read(batch.out))) == (OK, 5)
    assert before < batch.asked()
    assert len(batch.asked()) == 5
    assert not worker.cancelled


@pytest.mark.kafka
async def test_ctrl_c_twice_cancels_what_runs(
    cluster: Cluster, worker: FakeWorker, aril: RunAril, tmp_path: Path
) -> None:
    """It says so; what it cancelled is asked anew by the same command, under other ids."""
    batch = Interrupted(cluster, worker, tmp_path, "cancelled")
    code, said = await batch.run(signals=2)
    assert code == INTERRUPTED
    assert said == [
        "aril: batch: stopping; once more cancels what runs",
        "aril: batch: 2 jobs were cancelled; the next run asks them anew",
        "aril: batch: 5 lines: 0 answered, 5 not yet",
    ]
    before = batch.asked()
    await worker.until(lambda: before <= worker.cancelled)
    done = await aril(*batch.command, env=cluster.env)
    assert (done.code, len(read(batch.out))) == (OK, 5)
    assert len(batch.asked() - before) == 5


def test_a_file_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every bad line with its number, of the file or of what it asks; nothing is sent."""
    path = tmp_path / "in.jsonl"
    write(path, [chat_line("k1", "a"), chat_line("k1", "b"), chat_line("k2", "c", n=0)])
    assert main(["batch", "check", str(path)]) == FAILED
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "aril: batch: line 2: 'k1' is the id of a line before",
        "aril: batch: line 3: n: at least 1, not 0",
    ]
    assert captured.out == "2 lines, 2 bad\n"
    write(path, [chat_line("k1", "a", model="gpt-4.1"), {"prompt": "b"}])
    assert main(["batch", "check", str(path)]) == FAILED
    assert main(["batch", "check", str(path), "--model", "gpt-4.1"]) == OK


def test_many_bad_lines_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first of them are told."""
    path = write(tmp_path / "in.jsonl", [[]] * 30)
    assert main(["batch", "check", str(path)]) == FAILED
    err = capsys.readouterr().err.splitlines()
    assert (len(err), err[-1]) == (21, "aril: batch: and 10 more")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["run", "IN"], "-o"),
        (["run", "IN", "-o", "OUT"], "who asks?"),
        (["run", "IN", "-o", "OUT", "-t", "No"], "'No' is not a tenant's name"),
        (["run", "NONE", "-o", "OUT", "-t", "acme"], "No such file"),
        (["run", "IN", "-o", "IN", "-t", "acme"], "one file"),
        (["run", "IN", "-o", "NONE/OUT", "-t", "acme"], "No such file"),
        (["run", "BAD", "-o", "OUT", "-t", "acme"], "1 bad lines; nothing was asked"),
        (["run", "IN", "-o", "OTHER", "-t", "acme"], "name another file"),
        (["run", "IN", "-o", "OUT", "-t", "acme", "--name", "a.b"], "is no name"),
        (["run", "IN", "-o", "OUT", "-t", "acme", "--concurrency", "0"], "--concurrency"),
        (["run", "IN", "-o", "OUT", "-t", "acme", "--timeout", "0"], "--timeout"),
        (["check", "IN", "--priority", "101"], "--priority"),
        (["check", "IN", "--top-p", "2"], "batch: --top-p"),
        (["check", "IN", "--grammar", "NONE"], "batch: --grammar"),
        (["check", "IN", "-a", "x=y"], "batch: --adapter x=y"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    what: str,
) -> None:
    """With exit code 2, before anything is asked; files that are there stay as they are."""
    monkeypatch.delenv("ARIL_TENANT", raising=False)
    write(tmp_path / "IN", [chat_line("k1", "a")])
    write(tmp_path / "BAD", [[]])
    (tmp_path / "OTHER").write_text("notes\n")
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "IN").read_bytes()
    assert main(["batch", *arguments]) == USAGE
    assert what in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "IN").read_bytes() == before
    assert (tmp_path / "OTHER").read_text() == "notes\n"


def test_nobody_looks_at_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is for terminals; there it is a bar, or lines where rich is not installed."""
    screen = Screen()
    assert display_for(quiet=False) is None
    monkeypatch.setattr(sys, "stderr", screen)
    assert display_for(quiet=True) is None
    bar = display_for(quiet=False)
    assert isinstance(bar, Bar)
    bar.end()
    for name in ("rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    assert isinstance(display_for(quiet=False), Lines)


class Screen(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


@pytest.mark.parametrize("kind", [Bar, Lines])
async def test_how_far_it_is(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way shows the lines that are there, and how many jobs run."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    task = asyncio.create_task(watch(kind(), Tally(total=40, held=10, answered=7), Window(3)))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    shown = screen.getvalue()
    assert "17" in shown
    assert "40" in shown
    assert "0 jobs run" in shown


async def test_pace_and_time_to_go() -> None:
    """By the last minute; nothing is said of what nobody knows."""
    pace, tally = Pace(), Tally(total=1_000, answered=100)
    assert told(tally, pace, Window(3)) == ", 0.0/s, 0 jobs run"
    for second in range(200):
        pace.mark(float(second), min(second, 100) * 2)
    tally.failed["overloaded"], tally.retries = 20, 3
    assert pace.rate == pytest.approx(0.0)
    pace.mark(200.0, 320)
    assert told(tally, pace, Window(3)) == (
        ", 2.0/s, 0 jobs run, 7 min to go, 20 failed, 3 asked again"
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (119, "119 s"), (121, "2 min"), (7_100, "118 min"), (7_260, "2 h 1 min")],
)
def test_times_as_people_say_them(seconds: float, said: str) -> None:
    """Seconds, minutes, hours."""
    assert short(seconds) == said
