"""Measure what the prefix cache saves: jobs that come together and share most of their prompt.

    python -m benchmarks.shared_prefix    # writes shared_prefix.csv

SmolLM2-135M in float32, 32 jobs that share 400 prompt tokens, in an engine of 16 rows: all on the
backbone, and over the demo's three adapters and the backbone, each adapter at work from behind the
shared part on. The cache is on and off in turns, and cold at each beginning: every run has a salt.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time
import warnings
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from aril.schemas import Sampling
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.request import GenerationRequest
from benchmarks.record import Row, keep, ratios
from benchmarks.smollm2 import MAX_RANK, demo_adapters, load_smollm2
from benchmarks.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aril.worker.adapters import AdapterWeights

QUESTION: Final = "shared_prefix"
JOBS: Final = 32
SHARED: Final = 400
OWN: Final = 24
TOKENS: Final = 16
TURNS: Final = 5
BACKBONE, MIXED = "backbone", "3 adapters + backbone"


class Served(NamedTuple):
    """One run of all jobs; seconds from when all were submitted."""

    first: float  # median over the jobs, to the first token
    whole: float
    computed: int  # tokens of steps: prompts as far as they were computed, and answers


def jobs(adapters: Sequence[AdapterWeights | None], salt: str) -> Iterator[GenerationRequest]:
    """Make the requests: a beginning that is all jobs', an end that is each one's own."""
    for key in range(JOBS):
        own = (1_000 + (key * OWN + at) * 7 % 20_000 for at in range(OWN))
        adapter = adapters[key % len(adapters)]
        yield GenerationRequest(
            key=key,
            prompt_ids=(*(500 + at * 13 % 20_000 for at in range(SHARED)), *own),
            sampling=Sampling(max_tokens=TOKENS, temperature=0.0, ignore_eos=True),
            seed=0,
            adapter=adapter,
            active_from=0 if adapter is None else SHARED,
            salt=salt,
        )


def serve(engine: Engine, adapters: Sequence[AdapterWeights | None], runs: Iterator[int]) -> Served:
    """Answer all jobs. Raises RuntimeError where one fails."""
    for request in jobs(adapters, f"run {next(runs)}"):
        engine.submit(request)
    firsts: dict[int, float] = {}
    computed, begun = 0, time.perf_counter()
    while engine.has_work:
        outputs = engine.step()
        computed += engine.stats().tokens
        for output in outputs:
            if output.error is not None:
                raise RuntimeError(f"job {output.key} failed: {output.error}")
            firsts.setdefault(output.key, time.perf_counter() - begun)
    return Served(statistics.median(firsts.values()), time.perf_counter() - begun, computed)


def measure() -> list[Row]:
    """Run both engines on both kinds of jobs, in turns."""
    runs = itertools.count()
    ways: dict[tuple[str, str], Callable[[], Served]] = {}
    for name, on in (("cache on", True), ("cache off", False)):
        backbone = load_smollm2()
        config = EngineConfig(
            max_rows=16,
            max_step_tokens=512,
            slots=4,
            max_rank=MAX_RANK,
            kv_tokens=16_384,
            prefix_cache=on,
        )
        own: dict[str, list[AdapterWeights | None]] = {
            BACKBONE: [None],
            MIXED: [None, *demo_adapters(backbone)],
        }
        engine = Engine(backbone, config)
        for kind, adapters in own.items():
            ways[name, kind] = functools.partial(serve, engine, adapters, runs)
    found = in_turns(ways, TURNS)
    threads = torch.get_num_threads()
    config_told = (
        f"SmolLM2-135M float32, {JOBS} jobs, {SHARED} + {OWN} prompt tokens, {TOKENS} new,"
        f" 16 rows, {threads} threads"
    )
    row = functools.partial(Row.of, question=QUESTION, config=config_told)
    rows = []
    for (name, kind), served in found.items():
        for metric, unit, values in (
            ("first token", "s", [each.first for each in served]),
            ("tokens/s", "1/s", [JOBS * TOKENS / each.whole for each in served]),
            ("tokens computed", "1", [float(each.computed) for each in served]),
        ):
            rows.append(row(values, provider=name, metric=metric, x=kind, unit=unit))
    for kind in (BACKBONE, MIXED):
        with_it, without = found["cache on", kind], found["cache off", kind]
        for metric, values in (
            ("first token, sooner", ratios([a.first for a in without], [b.first for b in with_it])),
            ("tokens/s, ratio", ratios([a.whole for a in without], [b.whole for b in with_it])),
        ):
            rows.append(row(values, provider="on / off", metric=metric, x=kind, unit="1"))
    return rows


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    keep(QUESTION, measure())
