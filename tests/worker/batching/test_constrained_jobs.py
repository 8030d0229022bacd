"""A job's constraint on its way to the engine: compiled beside others, refused by name."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from aril.schemas import ErrorCode, ErrorRecord, Job, JobError, Sampling
from aril.worker.batching import places
from tests.support.harness import Harness

if TYPE_CHECKING:
    from aril.schemas.constraint import Constraint

ROWS = 4


class Compiled(str):
    """A text as what was compiled."""

    __slots__ = ()
    worn = False


class GatedCompiler:
    """Compiles `slow…` when the test says so, refuses `bad`, breaks at `broken`."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def digest(self, constraint: Constraint) -> bytes:
        """Return the text."""
        return constraint.text.encode()

    def compile(self, constraint: Constraint) -> Any:
        """Return the text as what was compiled."""
        if constraint.text.startswith("slow"):
            self.open.wait(30)
        if constraint.text == "bad":
            raise JobError(ErrorCode.INVALID_JOB, "regex: bad", limit=1, given=2)
        if constraint.text == "broken":
            raise RuntimeError("a secret")
        return Compiled(constraint.text)

    def close(self) -> None:
        """Let go whatever waits."""
        self.open.set()


def send(harness: Harness, tenant: str, name: str, regex: str | None = None) -> None:
    """Send a job, perhaps with a constraint."""
    harness.send(Job(id=name, tenant=tenant, prompt=name, sampling=Sampling(regex=regex)))


def error_of(harness: Harness, name: str) -> ErrorRecord | None:
    """Return what a job was told."""
    records = harness.replies("acme", name)
    return next((each for each in records if isinstance(each, ErrorRecord)), None)


async def test_what_was_compiled_goes_to_the_engine() -> None:
    """With the jobs that asked for it, and with no other."""
    async with Harness(constraints=GatedCompiler()) as harness:
        send(harness, "acme", "held", "[a-z]+")
        send(harness, "acme", "free")
        await harness.until(lambda: len(harness.running) == 2)
        found: dict[str, Any] = {
            name: harness.engine.requests[harness.key_of(name)].constraint
            for name in ("held", "free")
        }
        assert found == {"held": "[a-z]+", "free": None}


@pytest.mark.parametrize(
    ("regex", "code", "words"),
    [
        ("bad", ErrorCode.INVALID_JOB, "regex: bad"),
        ("broken", ErrorCode.INTERNAL, "the job could not be prepared"),
    ],
)
async def test_what_cannot_be_compiled_is_told(regex: str, code: ErrorCode, words: str) -> None:
    """A refusal with its limit, a fault of ours without its words; the next job is served."""
    async with Harness(constraints=GatedCompiler()) as harness:
        send(harness, "acme", "j1", regex)
        await harness.until(lambda: error_of(harness, "j1") is not None)
        error = error_of(harness, "j1")
        assert error is not None
        assert (error.code, error.message) == (code, words)
        if code is ErrorCode.INVALID_JOB:
            assert (error.limit, error.given) == (1, 2)
        send(harness, "acme", "j2", "a")
        await harness.until(lambda: harness.running == ["j2"])


async def test_a_service_that_cannot_constrain_says_so() -> None:
    """No answer is free that was to be constrained."""
    async with Harness() as harness:
        send(harness, "acme", "j1", "a")
        await harness.until(lambda: error_of(harness, "j1") is not None)
        error = error_of(harness, "j1")
        assert error is not None
        assert error.code is ErrorCode.INVALID_JOB
        assert "does not constrain" in error.message


async def test_slow_constraints_hold_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of one tenant's that take long to compile: another tenant's free job runs at once."""
    monkeypatch.setattr(places, "SLOW_FETCH_SECONDS", 0.0)
    compiler = GatedCompiler()
    async with Harness(constraints=compiler, max_rows=ROWS) as harness:
        for number in range(3 * ROWS):
            send(harness, "zeta", f"s{number}", f"slow{number}")
        await harness.until(lambda: len(harness.dispatcher._places.slow) == ROWS)
        send(harness, "acme", "hello")
        await harness.until(lambda: harness.running == ["hello"])
        compiler.open.set()
        await harness.until(lambda: len(harness.running) > 1)
