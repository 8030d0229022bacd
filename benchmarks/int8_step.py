"""What weights in eight bits save of a decode step and of a prompt.

    python -m benchmarks.int8_step    # writes int8_step.csv

SmolLM2-135M's shape with random weights, 16 rows over 4 adapters and the backbone or over the
backbone alone, one thread; the time is the thread's own. Steps of both kinds of weights take turns.
Then prompts of 256 tokens, on the backbone, with nothing beside them.
"""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING, Final, get_args

from aril.schemas import Sampling
from aril.worker.engine.config import Weights
from aril.worker.engine.request import GenerationRequest
from benchmarks.decode_step import DTYPES, ROWS, load
from benchmarks.record import Row, keep, ratios
from benchmarks.turns import in_turns, use_one_thread
from tests.support.int8 import why_not

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aril.worker.engine.engine import Engine

QUESTION: Final = "int8_step"
CONTEXT, PROMPT = 32, 256
STEPS, PROMPTS = 21, 7
_FIRST_KEY: Final = 1_000  # of prompts: rows that decode have lower ones


def measure() -> Iterator[Row]:
    """Time each case, and say what of a step is left."""
    for name, dtype in DTYPES.items():
        for adapters in (True, False):
            engines = {
                weights: load(dtype, CONTEXT, adapters=adapters, weights=weights)
                for weights in get_args(Weights)
            }
            steps = {way: _step_of(engine) for way, engine in engines.items()}
            rows = f"{ROWS} rows, {'4 adapters and the backbone' if adapters else 'the backbone'}"
            yield from _rows(in_turns(steps, STEPS), f"step of {ROWS}", f"{name}, {rows}")
        for engine in engines.values():  # of the backbone alone
            for key in range(ROWS):
                engine.cancel(key)
            while engine.has_work:
                engine.step()
        prompts = {way: _prompt_of(engine) for way, engine in engines.items()}
        yield from _rows(in_turns(prompts, PROMPTS), f"prompt of {PROMPT}", f"{name}, the backbone")


def _spent(work: Callable[[], object]) -> float:
    """Return the milliseconds of this thread that a call takes."""
    begun = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - begun)


def _step_of(engine: Engine) -> Callable[[], float]:
    return lambda: _spent(engine.step)


def _prompt_of(engine: Engine) -> Callable[[], float]:
    keys = count(_FIRST_KEY)

    def answer() -> None:
        while engine.has_work:
            engine.step()

    def run() -> float:
        key = next(keys)
        prompt = tuple((31 * at + 7 * key) % 20_000 for at in range(PROMPT))
        one = Sampling(max_tokens=1, temperature=0.0)
        engine.submit(
            GenerationRequest(key=key, prompt_ids=prompt, sampling=one, seed=0, adapter=None)
        )
        return _spent(answer)

    return run


def _rows(taken: dict[str, list[float]], x: str, config: str) -> Iterator[Row]:
    for way, times in taken.items():
        for metric, unit, samples in (
            ("time", "ms", times),
            ("time, of the stored weights'", "1", ratios(times, taken["stored"])),
        ):
            yield Row.of(
                samples,
                question=QUESTION,
                provider=way,
                metric=metric,
                x=x,
                unit=unit,
                config=f"SmolLM2-135M's shape, {config}, one thread",
            )


if __name__ == "__main__":
    use_one_thread(f"benchmarks.{QUESTION}")
    if (why := why_not()) is None:
        keep(QUESTION, measure())
    else:
        print(why)
