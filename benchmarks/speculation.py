"""Measure what drafts save where answers are guessed well, and what they cost where they are not.

    python -m benchmarks.speculation [name]    # writes speculation.csv, or that of the name

SmolLM2-135M, one thread, by its CPU time of the steps in which all rows decode. Jobs that copy
(a text repeated word for word), that extract (the demo's adapter, people and places as JSON, behind
earlier turns of the same kind, and without), that invent (stories, sampled), and all of them mixed.
Each by 1, 4 and 16 rows at a time, greedily but for the stories, with drafts and without in turns;
a turn asks what was not asked in the last one. Before each the same answers to other questions are
known, and no others. Tokens of both ways are compared: by rounding they may part where two are
nearly as likely.

What a step costs that drafts is measured by drafts that are wrong, beside what is reckoned with.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
import time
from collections import deque
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from aril.schemas import Sampling
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.guessing import Guess
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.speculation import Speculation
from aril.worker.engine.step_cost import StepCost
from benchmarks.record import Row, keep, ratios, show
from benchmarks.smollm2 import MAX_RANK, demo_adapters, load_smollm2
from benchmarks.turns import in_turns, use_one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aril.worker.engine.model import Backbone
    from aril.worker.engine.sequence import TokenSequence

QUESTION: Final = "speculation"
EXAMPLES: Final = Path(__file__).parent.parent / "aril" / "demo" / "train" / "extract.jsonl"
MOST: Final = 7
TOKENS: Final = 48
ROWS: Final = (1, 4, 16)
JOBS: Final = 2  # a row, one after the other
SENTENCES: Final = 4  # of a text that is copied
EARLIER: Final = 3  # turns
KNOWN: Final = 16  # answers of each kind, to questions that are not asked
TURNS: Final = 4
COPY, EXTRACT, ALONE, STORY = "copy", "extract, 4th turn", "extract", "story"
KINDS: Final = (COPY, EXTRACT, ALONE, STORY)
MIXED: Final = "mixed"
CASES: Final = {
    torch.bfloat16: [*itertools.product(KINDS, ROWS), (MIXED, max(ROWS))],
    torch.float32: [*itertools.product((EXTRACT, STORY), ROWS)],
}
PRICED: Final = {1: (1, 3, 7), 4: (1, 4, 12), 16: (1, 8, 16)}  # rows: guesses of a step
PROMPT: Final = 150
STEPS: Final = 8
SUBJECTS: Final = ("the sea", "a lost key", "two brothers", "winter", "a red bicycle")

Message = dict[str, str]


class Served(NamedTuple):
    """What the steps took and brought in which all rows decoded."""

    seconds: float  # of the thread
    tokens: int
    row_steps: int  # rows of all steps
    drafted: int
    accepted: int
    ids: tuple[tuple[int, ...], ...]

    @property
    def a_second(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def examples() -> list[tuple[str, str]]:
    """Read texts and what is to be extracted from them; questions are left out."""
    lines = [json.loads(line) for line in EXAMPLES.read_text().splitlines()]
    return [(each["prompt"], each["answer"]) for each in lines if "?" not in each["prompt"]]


def messages(kind: str, row: int) -> list[Message]:
    """Make one row's conversation; no two rows, nor kinds, ask to extract from the same text."""
    known = examples()
    first = row + (len(known) // 2 - EARLIER if kind == EXTRACT else 0)
    known = known[first:] + known[:first]
    asked = [{"role": "user", "content": text} for text, _ in known]
    if kind == COPY:
        text = " ".join(text for text, _ in known[:SENTENCES])
        content = f"Repeat this text exactly, word for word: {text}"
        return [{"role": "user", "content": content}]
    if kind == STORY:
        subject = SUBJECTS[row % len(SUBJECTS)]
        return [{"role": "user", "content": f"Tell me a story about {subject}."}]
    if kind == ALONE:
        return asked[:1]
    told = [{"role": "assistant", "content": answer} for _, answer in known]
    earlier = [each for pair in zip(asked, told, strict=True) for each in pair]
    return [*earlier[: 2 * EARLIER], asked[EARLIER]]


def serve(engine: Engine, requests: list[GenerationRequest], rows: int) -> Served:
    """Answer all, so many at a time; what counts are steps in which all of them decode.

    Rows differ in how well they are guessed: without others behind them the slowest would go on
    alone. Raises RuntimeError where one fails.
    """
    ids: dict[int, list[int]] = {request.key: [] for request in requests}
    waiting = deque(requests)
    under_way: set[int] = set()
    tokens = row_steps = drafted = accepted = 0
    seconds = 0.0
    while waiting or under_way:
        while waiting and len(under_way) < rows:
            under_way.add(waiting[0].key)
            engine.submit(waiting.popleft())
        counts = len(under_way) == rows and all(ids[key] for key in under_way)
        before = engine.stats()
        begun = time.thread_time()
        outputs = engine.step()
        spent = time.thread_time() - begun
        for output in outputs:
            if output.error is not None:
                raise RuntimeError(f"row {output.key} failed: {output.error}")
            ids[output.key] += output.ids
            if output.finish is not None:
                under_way.discard(output.key)
        if counts:
            after = engine.stats()
            seconds += spent
            tokens += len(outputs)
            row_steps += rows
            drafted += after.drafted - before.drafted
            accepted += after.accepted - before.accepted
    return Served(seconds, tokens, row_steps, drafted, accepted, tuple(map(tuple, ids.values())))


def engine_of(backbone: Backbone, speculation: Speculation) -> Engine:
    """Make an engine; ways that are compared share one, since memory is not alike everywhere."""
    config = EngineConfig(
        max_rows=max(ROWS),
        max_step_tokens=8192,  # all prompts at once, so that rows decode together
        slots=4,
        max_rank=MAX_RANK,
        kv_tokens=16_384,
        dtype=backbone.dtype,
    )
    return Engine(backbone, config, speculation=speculation)


class Switched(Speculation):
    """As the worker's, and can be turned off."""

    on = True

    def guess(self, sequence: TokenSequence, least: float) -> Guess:
        """Guess as the worker does, or nothing."""
        return super().guess(sequence, least) if self.on else Guess()

    def knowing(self, other: Switched, *, on: bool) -> None:
        """Know what another knew, and no more."""
        self._kinds = deepcopy(other._kinds)
        self.on = on


def jobs(backbone: Backbone) -> Callable[[str, range], list[GenerationRequest]]:
    """Return what makes the requests of a kind, for these rows."""
    extract = demo_adapters(backbone)[-1]

    def request(kind: str, row: int) -> GenerationRequest:
        kind = KINDS[row % len(KINDS)] if kind == MIXED else kind
        prompt = backbone.tokenizer.apply_chat_template(
            messages(kind, row), add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return GenerationRequest(
            key=row,
            prompt_ids=tuple(prompt),
            sampling=Sampling(max_tokens=TOKENS, temperature=1.0 if kind == STORY else 0.0),
            seed=row,
            adapter=extract if kind in {EXTRACT, ALONE} else None,
        )

    return lambda kind, rows: [request(kind, row) for row in rows]


class Wrong(Speculation):
    """Drafts one token, so many times a step, whatever comes of it."""

    count = 0

    def guess(self, sequence: TokenSequence, least: float) -> Guess:
        """Guess it."""
        super().guess(sequence, least)
        assert sequence.guessing is not None  # noqa: S101 - it has guessed
        guess = sequence.guessing.guess = Guess()
        for _ in range(MOST):
            guess.add(0, 0, 1.0)
        return guess

    def choose(
        self,
        chances: Sequence[Sequence[float]],
        _prices: Sequence[float],
        _cost: Callable[[int], float],
        _useful: int,
        _most: int,
    ) -> list[int]:
        """Share them out among the rows."""
        count, rows = self.count, len(chances)
        return [(count + row) // rows for row in range(rows)]


def prices(backbone: Backbone) -> list[Row]:
    """Measure what steps with drafts cost, by rows, beside what is reckoned with."""
    speculation = Wrong(MOST)
    engine = engine_of(backbone, speculation)
    assumed = StepCost(engine.layers.products, backbone.layouts)

    def step(count: int) -> float:
        speculation.count = count
        begun = time.thread_time()
        engine.step()
        return time.thread_time() - begun

    rows = []
    for decodes, counts in PRICED.items():
        for key in range(decodes):
            prompt = tuple(1_000 + (key * PROMPT + at) * 7 % 20_000 for at in range(PROMPT))
            sampling = Sampling(max_tokens=STEPS * 16, temperature=0.0, ignore_eos=True)
            engine.submit(
                GenerationRequest(
                    key=key, prompt_ids=prompt, sampling=sampling, seed=key, adapter=None
                )
            )
        while engine.stats().rows < decodes or engine.stats().tokens != decodes:
            step(0)
        found = in_turns({n: functools.partial(step, n) for n in (0, *counts)}, STEPS)
        for key in range(decodes):
            engine.cancel(key)
        for count in counts:
            whole = assumed(decodes + count, decodes + count) + count * assumed.beside_row(PROMPT)
            row = functools.partial(
                Row.of,
                question=QUESTION,
                metric="step with guesses / without",
                x=f"{decodes} rows and {count}",
                unit="1",
                config=f"SmolLM2-135M {_named(backbone.dtype)}, wrong guesses, context {PROMPT}",
            )
            rows += [
                row(ratios(found[count], found[0]), provider="measured"),
                row([whole / assumed(decodes, decodes)], provider="assumed"),
            ]
    return rows


def measure(dtype: torch.dtype) -> list[Row]:
    """Run all kinds with drafts and without, in turns."""
    rows = prices(load_smollm2(dtype))
    backbone = load_smollm2(dtype)
    known, speculation = Switched(MOST), Switched(MOST)
    make, engine = jobs(backbone), engine_of(backbone, speculation)
    asked = JOBS * max(ROWS)
    for kind in KINDS:
        serve(engine, make(kind, range(asked, asked + KNOWN)), KNOWN)
    known.knowing(speculation, on=True)
    off, on = "no drafts", f"drafts of up to {MOST}"

    def run(firsts: Iterator[int], kind: str, count: int, *, drafts: bool) -> Served:
        first = next(firsts)
        speculation.knowing(known, on=drafts)
        return serve(engine, make(kind, range(first, first + JOBS * count)), count)

    config = f"SmolLM2-135M {_named(dtype)}, up to {TOKENS} tokens, one thread, CPU time"
    for kind, count in CASES[dtype]:
        firsts = range(0, asked, JOBS * count)
        ways = {
            name: functools.partial(run, itertools.cycle(firsts), kind, count, drafts=name == on)
            for name in (off, on)
        }
        found = in_turns(ways, TURNS)
        plain, drafted = found[off], found[on]
        row = functools.partial(Row.of, question=QUESTION, x=f"{kind}, {count}", config=config)
        for name, turns in ((off, plain), (on, drafted)):
            values = [turn.a_second for turn in turns]
            rows.append(row(values, provider=name, metric="tokens/s", unit="1/s"))
        faster = ratios([turn.a_second for turn in drafted], [turn.a_second for turn in plain])
        same = [
            sum(map(tuple.__eq__, one.ids, other.ids)) / len(one.ids)
            for one, other in zip(drafted, plain, strict=True)
        ]
        for metric, values in (
            ("tokens a row and step", [turn.tokens / turn.row_steps for turn in drafted]),
            ("accepted of drafted", [turn.accepted / max(1, turn.drafted) for turn in drafted]),
            ("drafted a token", [turn.drafted / turn.tokens for turn in drafted]),
            ("answers that are the same", same),
        ):
            rows.append(row(values, provider=on, metric=metric, unit="1"))
        rows.append(row(faster, provider="on / off", metric="ratio of tokens/s", unit="1"))
        show(rows[-6:])
    return rows


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    use_one_thread("benchmarks.speculation")
    keep(sys.argv[1] if sys.argv[1:] else QUESTION, itertools.chain(*map(measure, CASES)))
