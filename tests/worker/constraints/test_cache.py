"""Constraints are compiled once, kept within bounds, and refusals with them."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from aril.schemas import ErrorCode, JobError
from aril.schemas.constraint import Constraint
from aril.worker.constraints import cache
from aril.worker.constraints.cache import ConstraintCache
from aril.worker.observe.metrics import Metrics


@dataclass(eq=False)
class Compiled:
    """What answers begin from, worn out when the test says so."""

    worn: bool = False


class CountingCompiler:
    """Takes a note of what it compiles; `bad…` is refused, `odd…` an error of ours."""

    def __init__(self) -> None:
        self.compiled: list[str] = []
        self.closed = False

    def digest(self, constraint: Constraint) -> bytes:
        """Return the text."""
        return constraint.text.encode()

    def compile(self, constraint: Constraint) -> Any:
        """Return something of its own, or refuse."""
        self.compiled.append(constraint.text)
        if constraint.text.startswith("bad"):
            raise JobError(ErrorCode.INVALID_JOB, "regex: bad", limit=3, given=4)
        if constraint.text.startswith("odd"):
            raise JobError(ErrorCode.INTERNAL, "odd")
        return Compiled()

    def close(self) -> None:
        """Take a note."""
        self.closed = True


def regex(text: str) -> Constraint:
    """Make a constraint."""
    return Constraint("regex", text, "regex")


def counted(metrics: Metrics, outcome: str) -> float | None:
    """Return how often that was done."""
    return metrics.registry.get_sample_value("aril_constraints_total", {"outcome": outcome})


@pytest.fixture
def compiler() -> CountingCompiler:
    """Count in each test anew."""
    return CountingCompiler()


async def test_one_that_many_ask_for_is_compiled_once(compiler: CountingCompiler) -> None:
    """At the same time or later: all get the same."""
    metrics = Metrics()
    kept = ConstraintCache(compiler, metrics)
    found = await asyncio.gather(*(kept.get("t", regex("a")) for _ in range(5)))
    found.append(await kept.get("t", regex("a")))
    assert len({*map(id, found)}) == 1
    assert compiler.compiled == ["a"]
    assert (counted(metrics, "compiled"), counted(metrics, "cached")) == (1, 1)
    kept.close()
    assert compiler.closed


async def test_a_refusal_is_kept_and_told_in_full(compiler: CountingCompiler) -> None:
    """A hostile tenant has it tried once; an error of ours is tried again."""
    metrics = Metrics()
    kept = ConstraintCache(compiler, metrics)
    for _ in range(2):
        with pytest.raises(JobError) as refused:
            await kept.get("t", regex("bad"))
        assert (refused.value.limit, refused.value.given) == (3, 4)
        with pytest.raises(JobError):
            await kept.get("t", regex("odd"))
    assert compiler.compiled == ["bad", "odd", "odd"]
    assert counted(metrics, "refused") == 3
    kept.close()


@pytest.mark.parametrize(("entries", "room"), [(2, 100), (100, 2)])
async def test_the_least_recently_used_goes(
    entries: int, room: int, compiler: CountingCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number, and by the bytes of all texts."""
    monkeypatch.setattr(cache, "MAX_ENTRIES", entries)
    monkeypatch.setattr(cache, "MAX_TEXT_BYTES", room)
    kept = ConstraintCache(compiler, Metrics())
    for text in "abaca":
        await kept.get("t", regex(text))
    assert compiler.compiled == ["a", "b", "c"]
    await kept.get("t", regex("b"))
    assert compiler.compiled == ["a", "b", "c", "b"]
    kept.close()


async def test_what_answers_have_worn_out_is_compiled_again(compiler: CountingCompiler) -> None:
    """Else all later answers under it would end in an error."""
    kept = ConstraintCache(compiler, Metrics())
    first = await kept.get("t", regex("a"))
    assert await kept.get("t", regex("a")) is first
    vars(first)["worn"] = True
    assert await kept.get("t", regex("a")) is not first
    assert compiler.compiled == ["a", "a"]
    assert kept._bytes == 1
    kept.close()


async def test_one_that_is_larger_than_the_cache_pushes_nobody_out(
    compiler: CountingCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted in bytes, as all are; its own tenant's next job compiles it again."""
    monkeypatch.setattr(cache, "MAX_TEXT_BYTES", 4)
    kept = ConstraintCache(compiler, Metrics())
    for text in ("a", "ééé", "a", "ééé"):
        await kept.get("t", regex(text))
    assert compiler.compiled == ["a", "ééé", "ééé"]
    kept.close()


class GatedCompiler(CountingCompiler):
    """Compiles one at a time, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)

    def compile(self, constraint: Constraint) -> Any:
        """Wait for the word."""
        assert self.gate.acquire(timeout=30)
        return super().compile(constraint)


async def test_a_flood_of_one_tenant_holds_up_others_for_one_constraint() -> None:
    """Theirs is the next: a tenant has one at a time in the thread."""
    compiler = GatedCompiler()
    kept = ConstraintCache(compiler, Metrics())
    flood = [asyncio.create_task(kept.get("zeta", regex(f"z{at}"))) for at in range(9)]
    await asyncio.sleep(0.01)
    other = asyncio.create_task(kept.get("acme", regex("a")))
    for _ in range(2):
        await asyncio.sleep(0.01)
        compiler.gate.release()
    await other
    assert compiler.compiled[:2] == ["z0", "a"]
    compiler.gate.release(len(flood))
    await asyncio.gather(*flood)
    assert not kept._turns
    kept.close()
