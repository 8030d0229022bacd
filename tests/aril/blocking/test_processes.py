"""The client without asyncio at the ends of a process: forks, and exits that nobody prepared."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

from aril.blocking.loop_thread import EXIT_SECONDS

ROOT = Path(__file__).parents[3]
PRELUDE = """
import asyncio, os, sys
from aril import BlockingClient, ClientClosed
from tests.support.fake_worker import FakeWorker, tokens
from tests.support.served_memory import ServedTransport


class Never(FakeWorker):
    @staticmethod
    def _answer(job):
        return [tokens(job.id, 0, "one")]
"""
# Python needs as long to start and to end on a busy machine.
SPARE_SECONDS = 20.0


def run(program: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run a program behind the prelude; return how it ended and the seconds it said it lasted."""
    began = time.monotonic()
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(program)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return finished, time.monotonic() - began


FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # that forking with threads is no good idea
client = BlockingClient("", "acme", transport=ServedTransport())
before = BlockingClient("", "acme", transport=ServedTransport())
stream = client.stream("one two three")
events = iter(stream)
next(events)
child = os.fork()
if child == 0:
    for ask in (lambda: client.complete("x"), lambda: next(events), client.open, stream.result):
        try:
            ask()
        except ClientClosed as error:
            assert f"opened in process {os.getppid()}" in str(error)
        else:
            raise AssertionError(ask)
    client.close()
    stream.close()
    print("child", before.complete("fine").text, flush=True)
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print("parent", stream.result().text, client.complete("well").text, before.complete("too").text)
"""


def test_a_forked_child_is_told() -> None:
    """It is refused at once, closing does nothing to its parent, and an unopened one works."""
    finished, _ = run(FORK)
    assert finished.stderr == ""
    assert finished.stdout == "child fine\nparent one two three well too\n"
    assert finished.returncode == 0


FORK_OF_ONE_THAT_FAILED = """
from aril import BrokerUnavailable
transport = ServedTransport()
transport.broker.failing = True
client = BlockingClient("", "acme", transport=transport)
try:
    client.open()
except BrokerUnavailable:
    transport.broker.failing = False
child = os.fork()
if child == 0:
    print("child", client.complete("fine").text, flush=True)
    client.close()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print("parent", client.complete("well").text)
"""


def test_one_that_never_opened_is_nobodys() -> None:
    """Where opening has failed, whichever process tries again has it."""
    finished, _ = run(FORK_OF_ONE_THAT_FAILED)
    assert (finished.stdout, finished.stderr) == ("child fine\nparent well\n", "")
    assert finished.returncode == 0


OPEN_END = """
transport = ServedTransport(Never)
close = transport.close
async def told():
    await close()
    print("cancelled", *transport.cancelled(), flush=True)
transport.close = told
client = BlockingClient("", "acme", transport=transport)
stream = client.stream("x", job_id="a").start()
"""


def test_what_is_left_open_is_closed_at_exit() -> None:
    """A program that ends, by its end or by an exception, cancels what nobody will read."""
    finished, _ = run(OPEN_END)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "cancelled a\n", "")
    finished, _ = run(OPEN_END + "raise SystemExit('enough')")
    assert (finished.returncode, finished.stdout, finished.stderr) == (
        1,
        "cancelled a\n",
        "enough\n",
    )


STUCK = """
class Stuck(ServedTransport):
    async def close(self):
        await asyncio.sleep(3600)

clients = [BlockingClient("", "acme", transport=Stuck()).open() for _ in range(3)]
"""


def test_a_broker_that_does_not_answer_holds_up_no_exit() -> None:
    """All clients together delay it by two seconds, and say nothing."""
    finished, seconds = run(STUCK)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    assert EXIT_SECONDS < seconds < EXIT_SECONDS + SPARE_SECONDS


INTERRUPTED = """
import signal
class Interrupting(FakeWorker):
    @staticmethod
    def _answer(job):
        os.kill(os.getpid(), signal.SIGINT)
        return []

client = BlockingClient("", "acme", transport=ServedTransport(Interrupting))
client.complete("x")
"""


def test_ctrl_c_without_a_with_block() -> None:
    """It ends the program as Python does, without waiting for the answer."""
    finished, _ = run(INTERRUPTED)
    assert finished.returncode in {-2, 130}
    assert finished.stderr.endswith("KeyboardInterrupt\n")
