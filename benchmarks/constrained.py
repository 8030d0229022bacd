"""Measure what constraints cost a step of 16 rows: all of them constrained, against none.

    python -m benchmarks.constrained    # writes constrained.csv

SmolLM2-135M on the CPU, one thread and one for masks, sampled at temperature 1, in turns: free
rows, and all under one JSON Schema, under another, a regular expression, a Lark grammar. A turn is
`STEPS` decode steps of fresh answers that cannot end before; a figure is the milliseconds a step,
the mean over the turn, so that steps whose masks cost most count in full. A ratio is that of turns
of the same round. "Sampling over free" is a free step with what sampling took longer, over a free
step: what a constraint costs without what the model's products scatter.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aril.schemas import Sampling
from aril.worker.constraints.compiler import ConstraintCompiler
from aril.worker.constraints.vocabulary import Vocabulary
from aril.worker.engine import step_sampling
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.sampler import Sampled, sample
from benchmarks.record import Row, keep, ratios
from benchmarks.smollm2 import load_smollm2
from benchmarks.turns import in_turns, use_one_thread

if TYPE_CHECKING:
    from aril.worker.constraints.compiler import CompiledConstraint

QUESTION: Final = "constrained"
ROWS: Final = 16
STEPS: Final = 22
TURNS: Final = 9
PROMPT: Final = "<|im_start|>user\nTell me of a person.<|im_end|>\n<|im_start|>assistant\n"
FREE: Final = "free"
LONG: Final[dict[str, Any]] = {"type": "string", "minLength": 400}
WAYS: Final[dict[str, dict[str, Any]]] = {
    FREE: {},
    "schema, long text": {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "life": LONG},
        "required": ["name", "life"],
        "additionalProperties": False,
    },
    "schema, many items": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"id": {"type": "integer"}, "tag": {"enum": ["red", "green", "blue"]}},
            "required": ["id", "tag"],
            "additionalProperties": False,
        },
        "minItems": 40,
    },
    "regex": {"regex": "([A-Z][a-z]{2,9} ){60}"},
    "grammar": {"grammar": 'start: (N "+"){60,} N "."\nN: /[1-9][0-9]{0,5}/'},
}


class TimedSampling:
    """The engine's sampler, masks and the wait for them included; counts its seconds."""

    seconds = 0.0

    def __call__(self, *given: Any) -> Sampled:
        """Sample."""
        begun = time.perf_counter()
        sampled = sample(*given)
        self.seconds += time.perf_counter() - begun
        return sampled


def sampling_of(told: dict[str, Any]) -> Sampling:
    """Make the sampling of a way; a schema is one that has a type."""
    if "type" in told:
        form = {"type": "json_schema", "json_schema": {"schema": told}}
        told = {"response_format": form}
    return Sampling(max_tokens=STEPS + 2, ignore_eos=True, **told)


def turn(
    engine: Engine,
    timed: TimedSampling,
    prompt: tuple[int, ...],
    sampling: Sampling,
    held: CompiledConstraint | None,
) -> tuple[float, float]:
    """Return the milliseconds of a step, and of its sampling, over one turn."""
    for key in range(ROWS):
        engine.submit(
            GenerationRequest(
                key=key,
                prompt_ids=prompt,
                sampling=sampling,
                seed=key,
                adapter=None,
                constraint=held,
            )
        )
    while engine.stats().waiting or engine.stats().tokens != ROWS:
        engine.step()  # prompts
    before = timed.seconds
    begun = time.perf_counter()
    for _ in range(STEPS - 2):
        outputs = engine.step()
        if len(outputs) != ROWS or any(output.error for output in outputs):
            raise RuntimeError("a row has ended early")
    took = time.perf_counter() - begun
    spent = timed.seconds - before
    for key in range(ROWS):
        engine.cancel(key)
    return 1e3 * took / (STEPS - 2), 1e3 * spent / (STEPS - 2)


def measure() -> list[Row]:
    """Run all ways in turns."""
    backbone = load_smollm2()
    engine = Engine(
        backbone,
        EngineConfig(
            max_rows=ROWS,
            max_step_tokens=512,
            slots=2,
            max_rank=8,
            kv_tokens=ROWS * 128,
            prefix_cache=False,
        ),
    )
    vocabulary = Vocabulary.of(backbone.tokenizer, backbone.vocab_size, backbone.eos_token_ids)
    timed = TimedSampling()
    step_sampling.sample = timed  # type: ignore[attr-defined, assignment]
    compiler = ConstraintCompiler(vocabulary)
    prompt = tuple(backbone.tokenizer.encode(PROMPT))
    ways = {}
    for name, told in WAYS.items():
        sampling = sampling_of(told)
        asked = sampling.constraint
        held = None if asked is None else compiler.compile(asked)
        ways[name] = partial(turn, engine, timed, prompt, sampling, held)
    compiler.close()
    found = in_turns(ways, TURNS)
    config = f"SmolLM2-135M float32, {ROWS} rows, one thread, {STEPS - 2} steps a turn"
    row = partial(Row.of, question=QUESTION, x=ROWS, config=config)
    free = found[FREE]
    rows = []
    for name, turns in found.items():
        steps = [step for step, _ in turns]
        rows.append(row(steps, provider=name, metric="step", unit="ms"))
        rows.append(row([spent for _, spent in turns], provider=name, metric="sampling", unit="ms"))
        if name != FREE:
            whole = ratios(steps, [step for step, _ in free])
            alone = [
                1 + (spent - free_spent) / free_step
                for (_, spent), (free_step, free_spent) in zip(turns, free, strict=True)
            ]
            rows += [
                row(whole, provider=name, metric="step over free", unit="ratio"),
                row(alone, provider=name, metric="sampling over free", unit="ratio"),
            ]
    return rows


if __name__ == "__main__":
    use_one_thread("benchmarks.constrained")
    keep(QUESTION, measure())
