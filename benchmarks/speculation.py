"""Measure what drafts from a row's own prompt and answer save, and what they cost where they fail.

    python -m benchmarks.speculation    # writes speculation.csv

SmolLM2-135M, one thread, by its CPU time of the steps in which all rows decode. Jobs that copy
(a text repeated word for word), that extract (the demo's adapter, people and places as JSON, behind
earlier turns of the same kind, and without), and that invent (stories, sampled). Each by 1, 4 and
16 rows at a time, three jobs a row, greedily but for the stories, with drafts and without in turns.
Tokens of both ways are compared: by rounding they may part where two are nearly as likely.

What a drafted token costs is measured by drafts that are wrong: how much longer a step takes, in
tokens that a step without brings in that time. `Speculation.price` is to be no less.
"""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.record import Row, keep, ratios
from benchmarks.smollm2 import MAX_RANK, demo_adapters, load_smollm2
from benchmarks.turns import in_turns, use_one_thread
from schemas import Sampling
from worker.engine.config import EngineConfig
from worker.engine.engine import Engine
from worker.engine.processor import cpu_dtype
from worker.engine.request import GenerationRequest
from worker.engine.speculation import Speculation

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from worker.engine.model import Backbone
    from worker.engine.sequence import TokenSequence

QUESTION: Final = "speculation"
EXAMPLES: Final = Path(__file__).parent.parent / "aril" / "demo" / "train" / "extract.jsonl"
ROWS: Final = (1, 4, 16)
MOST: Final = 7
TOKENS: Final = 96
JOBS: Final = 3  # a row, one after the other
SENTENCES: Final = 5  # of a text that is copied
EARLIER: Final = 3  # turns
TURNS: Final = 3
COPY, EXTRACT, ALONE, STORY = "copy", "extract, 4th turn", "extract", "story"
PRICED: Final = (1, 2, 4, 8, 16)  # rows
DRAFT: Final = 3  # tokens of a wrong draft
PROMPT: Final = 200
STEPS: Final = 12
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
    """Make one row's conversation."""
    known = examples()
    known = known[row * 7 % len(known) :] + known[: row * 7 % len(known)]
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
        prefix_cache=False,
    )
    return Engine(backbone, config, speculation=speculation)


class Switched(Speculation):
    """As the worker's, and can be turned off."""

    on = True

    def price(self, decodes: int) -> float:
        """Return what is reckoned with, or a price that nobody pays."""
        return super().price(decodes) if self.on else 1.0


def jobs(backbone: Backbone) -> Callable[[str, int], list[GenerationRequest]]:
    """Return what makes the requests of a kind, so many of them."""
    extract = demo_adapters(backbone)[-1]

    def request(kind: str, row: int) -> GenerationRequest:
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

    return lambda kind, rows: [request(kind, row) for row in range(rows)]


class Wrong(Speculation):
    """Drafts one token, again and again, in every row."""

    length = 0

    def price(self, _decodes: int) -> float:
        """Return nothing: whatever it costs is what is asked."""
        return 0.0

    def draft(self, _sequence: TokenSequence, _price: float, room: int) -> tuple[int, ...]:
        """Draft it."""
        return (0,) * min(self.length, room)


def prices(backbone: Backbone) -> list[Row]:
    """Measure what drafted tokens cost, by rows, beside what is reckoned with."""
    speculation = Wrong(MOST)
    engine = engine_of(backbone, speculation)

    def step(length: int) -> float:
        speculation.length = length
        begun = time.thread_time()
        engine.step()
        return time.thread_time() - begun

    rows = []
    for count in PRICED:
        for key in range(count):
            prompt = tuple(1_000 + (key * PROMPT + at) * 7 % 20_000 for at in range(PROMPT))
            sampling = Sampling(max_tokens=STEPS * 8, temperature=0.0, ignore_eos=True)
            engine.submit(
                GenerationRequest(
                    key=key, prompt_ids=prompt, sampling=sampling, seed=key, adapter=None
                )
            )
        while engine.stats().rows < count or engine.stats().tokens != count:
            step(0)
        ways = {length: functools.partial(step, length) for length in (0, DRAFT)}
        found = in_turns(ways, STEPS)
        for key in range(count):
            engine.cancel(key)
        costs = [(each - 1) / DRAFT for each in ratios(found[DRAFT], found[0])]
        row = functools.partial(Row.of, question=QUESTION, x=count, unit="tokens")
        config = f"SmolLM2-135M {_named(backbone.dtype)}, wrong drafts of {DRAFT}, context {PROMPT}"
        metric = "price of a drafted token"
        rows += [
            row(costs, provider="measured", metric=metric, config=config),
            row([Speculation(MOST).price(count)], provider="assumed", metric=metric, config=config),
        ]
    return rows


def measure() -> list[Row]:
    """Run all kinds with drafts and without, in turns."""
    dtype = cpu_dtype()
    rows = prices(load_smollm2(dtype))
    backbone = load_smollm2(dtype)
    speculation = Switched(MOST)
    make, engine = jobs(backbone), engine_of(backbone, speculation)
    off, on = "no drafts", f"drafts of up to {MOST}"

    def run(requests: list[GenerationRequest], count: int, *, drafts: bool) -> Served:
        speculation.on = drafts
        return serve(engine, requests, count)

    config = f"SmolLM2-135M {_named(dtype)}, up to {TOKENS} tokens, one thread, CPU time"
    for kind, count in itertools.product((COPY, EXTRACT, ALONE, STORY), ROWS):
        asked = make(kind, JOBS * count)
        ways = {name: functools.partial(run, asked, count, drafts=name == on) for name in (off, on)}
        found = in_turns(ways, TURNS)
        plain, drafted = found[off], found[on]
        row = functools.partial(Row.of, question=QUESTION, x=f"{kind}, {count}", config=config)
        for name, turns in ((off, plain), (on, drafted)):
            values = [turn.a_second for turn in turns]
            rows.append(row(values, provider=name, metric="tokens/s", unit="1/s"))
        faster = ratios([turn.a_second for turn in drafted], [turn.a_second for turn in plain])
        same = [
            sum(map(tuple.__eq__, one.ids, other.ids)) / len(asked)
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
    return rows


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    use_one_thread("benchmarks.speculation")
    keep(QUESTION, measure())
