"""Measure the time between tokens while prompts come in, and what it costs those who wait.

    python -m benchmarks.between_tokens    # writes between_tokens.csv

SmolLM2-135M in the type that a worker takes on this processor, an engine of 16 rows over the demo's
three adapters and the backbone, on one thread. All seconds are its CPU time, jobs come by that
clock too: other programs on the machine change the figures little. `ARIL_STEP_STRETCH` is as it is
by default, and so large that prompts go in whole chunks, in turns.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time
import warnings
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.schemas import Sampling
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.processor import cpu_dtype
from aril.worker.engine.prompt_pace import UNBOUND
from aril.worker.engine.request import GenerationRequest
from benchmarks.record import Row, keep, ratios
from benchmarks.smollm2 import MAX_RANK, demo_adapters, load_smollm2
from benchmarks.turns import in_turns, use_one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aril.worker.adapters import AdapterWeights

QUESTION: Final = "between_tokens"
TURNS: Final = 3
ROWS: Final = 16
DECODING: Final = 8
PROMPT: Final = 512
WHOLE: Final = "whole chunks (stretch 1000)"
STRETCHES: Final = {"stretch 2 (default)": 2.0, WHOLE: UNBOUND}


class Asked(NamedTuple):
    """One job: when it comes, in decode steps of `DECODING` rows, and its tokens."""

    at: float
    prompt: int
    new: int


SCENES: Final = {
    f"{DECODING} rows decode, a prompt of {PROMPT} every 64 steps": [
        *(Asked(0, 32, 200) for _ in range(DECODING)),
        *(Asked(16 + 64 * number, PROMPT, 16) for number in range(3)),
    ],
    "16 jobs at once, 32 to 64 + 64": [Asked(0, 32 + row * 7 % 33, 64) for row in range(ROWS)],
    f"16 rows always full, {PROMPT} + 64": [Asked(0, PROMPT, 64) for _ in range(20)],
}


class Served(NamedTuple):
    """One run of a scene; seconds are CPU time."""

    gaps: list[float]  # between two tokens of a job, rising
    firsts: list[float]  # from a job's coming to its first token, rising
    rate: float  # tokens a second


def request(key: int, job: Asked, adapter: AdapterWeights | None) -> GenerationRequest:
    """Make a job's request; its prompt begins as no other's does."""
    return GenerationRequest(
        key=key,
        prompt_ids=tuple(1_000 + (key * PROMPT + at) * 7 % 20_000 for at in range(job.prompt)),
        sampling=Sampling(max_tokens=job.new, temperature=0.0, ignore_eos=True),
        seed=0,
        adapter=adapter,
    )


def serve(
    engine: Engine, adapters: Sequence[AdapterWeights | None], jobs: Sequence[Asked], step: float
) -> Served:
    """Answer jobs that come by the clock; `step` is a decode step's seconds."""
    coming = sorted(enumerate(jobs), key=lambda each: each[1].at)
    came: dict[int, float] = {}
    last: dict[int, float] = {}
    gaps, firsts, tokens = [], [], 0
    begun, waited = time.thread_time(), 0.0
    while coming or engine.has_work:
        now = time.thread_time() - begun + waited
        if not engine.has_work:  # nothing to do: the clock goes on to the next job
            waited += max(0.0, coming[0][1].at * step - now)
            now = max(now, coming[0][1].at * step)
        while coming and coming[0][1].at * step <= now:
            key, job = coming.pop(0)
            came[key] = job.at * step
            engine.submit(request(key, job, adapters[key % len(adapters)]))
        outputs = engine.step()
        now = time.thread_time() - begun + waited
        for output in outputs:
            if output.error is not None:
                raise RuntimeError(f"job {output.key} failed: {output.error}")
            tokens += len(output.ids)
            if output.key in last:
                gaps.append(now - last[output.key])
            else:
                firsts.append(now - came[output.key])
            last[output.key] = now
    return Served(sorted(gaps), sorted(firsts), tokens / now)


def decode_step(engine: Engine, adapters: Sequence[AdapterWeights | None]) -> float:
    """Return the seconds of a step of `DECODING` rows."""
    jobs = [Asked(0, 32, 24) for _ in range(DECODING)]
    return statistics.median(serve(engine, adapters, jobs, 0.0).gaps)


def at(rising: Sequence[float], share: float) -> float:
    """Return what so great a share of the values is below."""
    return rising[min(len(rising) - 1, int(len(rising) * share))]


def measure() -> list[Row]:
    """Run all scenes with all stretches in turns."""
    ways: dict[tuple[str, str], Callable[[], Served]] = {}
    step = 0.0
    for name, stretch in STRETCHES.items():
        backbone = load_smollm2(cpu_dtype())
        config = EngineConfig(
            max_rows=ROWS,
            max_step_tokens=512,
            slots=4,
            max_rank=MAX_RANK,
            kv_tokens=16_384,
            dtype=cpu_dtype(),
            prefix_cache=False,
            step_stretch=stretch,
        )
        adapters = [*demo_adapters(backbone), None]
        engine = Engine(backbone, config)
        step = step or decode_step(engine, adapters)  # the same for all, so that they get the same
        for scene, jobs in SCENES.items():
            ways[name, scene] = functools.partial(serve, engine, adapters, jobs, step)
    found = in_turns(ways, TURNS)
    named = str(cpu_dtype()).removeprefix("torch.")
    told = f"SmolLM2-135M {named}, {ROWS} rows, 3 adapters + backbone, CPU time of 1 thread"
    row = functools.partial(Row.of, question=QUESTION, config=told)
    return list(itertools.chain.from_iterable(_rows(row, *each) for each in found.items()))


def _rows(row: Callable[..., Row], way: tuple[str, str], served: Sequence[Served]) -> Iterator[Row]:
    """Make the CSV's rows of one way and scene."""
    name, scene = way
    row = functools.partial(row, provider=name, x=scene)
    middle = [1e3 * at(each.gaps, 0.5) for each in served]
    late = [1e3 * at(each.gaps, 0.99) for each in served]
    yield row(middle, metric="between tokens, p50", unit="ms")
    yield row(late, metric="between tokens, p99", unit="ms")
    yield row(ratios(late, middle), metric="between tokens, p99 / p50", unit="1")
    yield row([at(each.firsts, 0.5) for each in served], metric="first token, p50", unit="s")
    yield row([each.firsts[-1] for each in served], metric="first token, last", unit="s")
    yield row([each.rate for each in served], metric="tokens/s", unit="1/s")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    use_one_thread("benchmarks.between_tokens")
    keep(QUESTION, measure())
