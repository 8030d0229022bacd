"""Measure engines that share a machine: how long threads that wait for each other spin.

    python -m benchmarks.neighbours    # writes neighbours.csv

SmolLM2-135M in float32, 16 rows over 3 adapters and the backbone, each engine a process. One alone,
one beside a process that never sleeps, two, three; with each way of waiting. Each figure is divided
by what an engine with libgomp's and OpenBLAS's own settings gave alone right before it.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Self

import torch

from aril.schemas import Sampling
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.request import GenerationRequest
from benchmarks.cpu_engine import ROWS, prompt_of
from benchmarks.record import Row, keep, ratios
from benchmarks.smollm2 import MAX_RANK, demo_adapters, load_smollm2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aril.worker.adapters import AdapterWeights

QUESTION = "neighbours"
TOKENS = 48
SECONDS = 2.0
TURNS = 5
CROWD = 3
READ = ("OMP_", "GOMP_", "OPENBLAS_NUM")
BUSY = "beside a busy process"
SPINS = (300,)


class Way(NamedTuple):
    """How an engine's threads wait, and how many there are; 0: torch decides."""

    name: str
    waiting: tuple[tuple[str, str], ...] = ()  # variables of the environment
    threads: int = 0


OWN = Way("libraries' own")
NUMPY = ("OPENBLAS_NUM_THREADS", "1")
WAYS = (
    OWN,
    Way("asleep", (("OMP_WAIT_POLICY", "PASSIVE"), NUMPY)),
    *(Way(f"{spins} spins", (("GOMP_SPINCOUNT", str(spins)), NUMPY)) for spins in SPINS),
    Way("300 spins, numpy's own", (("GOMP_SPINCOUNT", "300"),)),
    Way("one thread", (NUMPY,), 1),
)


def submit(engine: Engine, adapters: Sequence[AdapterWeights | None]) -> None:
    """Give each row a job."""
    sampling = Sampling(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
    for row in range(ROWS):
        engine.submit(
            GenerationRequest(
                key=row,
                prompt_ids=prompt_of(row),
                sampling=sampling,
                seed=0,
                adapter=adapters[row % len(adapters)],
            )
        )


def serve(threads: int) -> None:
    """Be an engine: for each line on stdin decode so many seconds and print tokens a second."""
    if threads:
        torch.set_num_threads(threads)
    backbone = load_smollm2()
    config = EngineConfig(
        max_rows=ROWS,
        max_step_tokens=512,
        slots=4,
        max_rank=MAX_RANK,
        kv_tokens=4096,
        prefix_cache=False,
    )
    engine, adapters = Engine(backbone, config), [*demo_adapters(backbone), None]

    def rate(seconds: float) -> float:
        tokens, begun = 0, time.perf_counter()
        while (spent := time.perf_counter() - begun) < seconds:
            if not engine.has_work:
                submit(engine, adapters)
            tokens += len(engine.step())
        return tokens / spent

    rate(1.0)
    print(torch.get_num_threads(), flush=True)
    for line in sys.stdin:
        print(rate(float(line)), flush=True)


class Neighbour:
    """An engine in a process of its own; a context manager."""

    def __init__(self, way: Way) -> None:
        told = {key: each for key, each in os.environ.items() if not key.startswith(READ)}
        self._process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, "-m", "benchmarks.neighbours", "--serve", str(way.threads)],
            env=told | dict(way.waiting),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, seconds: float) -> None:
        """Let it decode."""
        print(seconds, file=self._process.stdin, flush=True)

    def answer(self) -> float:
        """Return what it prints next."""
        return float(self._process.stdout.readline())  # type: ignore[union-attr]


def together(engines: Sequence[Neighbour], seconds: float) -> float:
    """Return what engines give that decode at the same time, in tokens a second of them all."""
    for each in engines:
        each.ask(seconds)
    return sum(each.answer() for each in engines)


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep one process running that never sleeps."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Found:
    """Tokens a second of a scene, and of the default engine alone right before."""

    def __init__(self, way: Way, scene: str) -> None:
        self.way, self.scene = way, scene
        self.own: list[float] = []
        self.alone: list[float] = []

    def take(self, alone: float, own: float) -> None:
        """Keep one turn."""
        self.alone.append(alone)
        self.own.append(own)

    def rows(self, threads: float) -> Iterator[Row]:
        """Make the CSV's rows."""
        row = functools.partial(
            Row.of,
            question=QUESTION,
            provider=self.way.name,
            x=self.scene,
            config=f"SmolLM2-135M float32, {ROWS} rows, {threads:.0f} threads an engine",
        )
        yield row(self.own, metric="tokens/s of all", unit="1/s")
        yield row(ratios(self.own, self.alone), metric="of one, libraries' own, alone", unit="1")


def measure(seconds: float, turns: int) -> list[Row]:
    """Run one of each way in turns, alone and beside a busy process; then crowds, way by way."""
    found = {
        (way, scene): Found(way, scene)
        for way in WAYS
        for scene in ("alone", BUSY, *map(str, range(2, CROWD + 1)))
    }
    with ExitStack() as held:
        engines = {way: held.enter_context(Neighbour(way)) for way in WAYS}
        threads = {way: each.answer() for way, each in engines.items()}
        for turn in range(turns):
            for way in random.Random(turn).sample(WAYS, len(WAYS)):
                for scene, beside in (("alone", nullcontext), (BUSY, busy_process)):
                    alone = together([engines[OWN]], seconds)
                    with beside():
                        found[way, scene].take(alone, together([engines[way]], seconds))
        for way in WAYS:
            with ExitStack() as crowd:
                more = [crowd.enter_context(Neighbour(way)) for _ in range(CROWD - 1)]
                for each in more:
                    each.answer()
                for _ in range(turns):
                    for count in range(2, CROWD + 1):
                        alone = together([engines[OWN]], seconds)
                        own = together([engines[way], *more[: count - 1]], seconds)
                        found[way, str(count)].take(alone, own)
    return [row for each in found.values() for row in each.rows(threads[each.way])]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", type=int, metavar="THREADS", help="be one of the engines")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--turns", type=int, default=TURNS)
    arguments = parser.parse_args()
    if arguments.serve is None:
        keep(QUESTION, measure(arguments.seconds, arguments.turns))
    else:
        serve(arguments.serve)
