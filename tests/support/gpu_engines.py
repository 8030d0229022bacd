"""Engines and jobs that run on a device that is none as they do on the host."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING

from aril.schemas import Sampling
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import adopt_backbone
from aril.worker.engine.request import GenerationRequest
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aril.worker.engine.config import Graphs, RunAhead
    from aril.worker.engine.model import Backbone
    from tests.support.fake_gpu import FakeGpu

ROWS = 3


def engine_on(
    backbone: Backbone, device: str, graphs: Graphs = "off", run_ahead: RunAhead = "off"
) -> Engine:
    """Make an engine over a copy of the backbone."""
    own = adopt_backbone(copy.deepcopy(backbone.model), backbone.tokenizer, device, name="tiny")
    config = EngineConfig(
        max_rows=ROWS,
        max_step_tokens=16,
        slots=2,
        max_rank=4,
        kv_tokens=96,
        kv_block=4,
        device=device,
        graphs=graphs,
        run_ahead=run_ahead,
    )
    return Engine(own, config)


def jobs_of(backbone: Backbone, seed: int) -> list[GenerationRequest]:
    """Draw jobs: some on the backbone, some of an adapter's own strength, some from its middle on.

    Prompts are shorter and longer than a step's room; some begin alike.
    """
    dice = random.Random(seed)
    adapters = [random_adapter(backbone.linear_shapes, f"a{rank}", rank=rank) for rank in (4, 1, 3)]
    begin = [dice.randrange(384) for _ in range(8)]
    jobs = []
    for key in range(6):
        prompt = [*begin, *(dice.randrange(384) for _ in range(dice.choice([1, 3, 20])))]
        prompt = prompt[dice.choice([0, 0, 5]) :]
        adapter = dice.choice([None, *adapters])
        jobs.append(
            GenerationRequest(
                key=key,
                prompt_ids=tuple(prompt),
                sampling=Sampling(
                    max_tokens=dice.randrange(1, 8),
                    temperature=dice.choice([0.0, 1.0]),
                    logprobs=dice.choice([None, 2]),
                    repetition_penalty=dice.choice([1.0, 1.2]),
                    ignore_eos=True,
                ),
                seed=dice.getrandbits(60),
                adapter=adapter,
                adapter_scale=1.0 if adapter is None else dice.choice([1.0, 0.5]),
                active_from=0 if adapter is None else dice.choice([0, len(prompt) - 1]),
            )
        )
    return jobs


def count_replays(gpu: FakeGpu) -> int:
    """Count them over all recordings."""
    return sum(graph.replays for graph in gpu.graphs)


def run(
    engine: Engine, jobs: Sequence[GenerationRequest], after: Callable[[], None] | None = None
) -> dict[int, list[int]]:
    """Run jobs, a few at a time; `after` is called behind each step."""
    tokens: dict[int, list[int]] = {each.key: [] for each in jobs}
    waiting = list(jobs)
    while waiting or engine.has_work:
        if waiting and engine.stats().running + engine.stats().waiting < ROWS:
            engine.submit(waiting.pop(0))
        for output in engine.step():
            assert output.error is None
            tokens[output.key] += output.ids
        if after is not None:
            after()
    return tokens
