"""Real engines that draft: the same outputs, to the last bit, as without."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.schemas import Sampling
from aril.worker.constraints.compiler import ConstraintCompiler
from aril.worker.constraints.vocabulary import Vocabulary
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.mixture import mix
from aril.worker.engine.model import load_backbone
from aril.worker.engine.request import GenerationRequest, Output
from aril.worker.engine.sampler import sample
from aril.worker.engine.speculation import Speculation
from aril.worker.engine.votes import FIRST_RATES
from tests.support.drafting import KINDS, Always, Kind, Told, always
from tests.support.engine_runs import finish
from tests.support.tiny import make_tiny_model
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from aril.worker.engine.ngrams import NgramIndex
    from aril.worker.engine.sequence import TokenSequence

CONFIG = EngineConfig(
    max_rows=6,
    max_step_tokens=64,
    slots=3,
    max_rank=8,
    kv_tokens=1_024,
    kv_block=8,
    backend="torch",
    invariant=True,
)
VOCABULARY = 384
MOST = 7
BEGINNING = [5, 9, 13, 5, 9, 17, 40, 41, 42, 43]
REGEX = "([a-c]{2} ){3,9}[0-9]+"
WAYS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 0.0, "repetition_penalty": 1.2, "logprobs": 2},
    {"temperature": 0.9, "top_p": 0.9, "logprobs": 3},
    {"temperature": 1.3, "frequency_penalty": 1.5, "presence_penalty": 0.5},
    {"temperature": 1.0, "top_k": 4, "logit_bias": {"7": 8.0, "9": 8.0, "11": 7.5, "2": 7.0}},
    {"temperature": 1.0, "logit_bias": {"2": 12.0}, "min_tokens": 9, "ignore_eos": False},
    {"temperature": 1.0, "logit_bias": {"2": 4.0}, "min_tokens": 3, "stop_token_ids": [3, 8]},
    {"temperature": 0.8, "stop": ["e", "th", "1"]},
    {"temperature": 0.0, "prompt_logprobs": 1, "logprobs": 0},
    {"temperature": 1.2, "regex": REGEX},
    {"temperature": 0.7, "regex": REGEX, "repetition_penalty": 1.1, "logprobs": 1},
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny Llama for all tests."""
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def jobs(path: Path) -> list[GenerationRequest]:
    """Jobs of every way to sample, over adapters, whose prompts repeat themselves."""
    backbone = load_backbone(path, "cpu", torch.float32)
    one, two = (random_adapter(backbone.linear_shapes, name, rank=4) for name in ("one", "two"))
    adapters = [None, one, two, mix((one, two), (0.5, 0.7))]
    compiler = ConstraintCompiler(
        Vocabulary.of(backbone.tokenizer, backbone.vocab_size, backbone.eos_token_ids)
    )
    made = []
    for key in range(2 * len(WAYS)):
        way = {"max_tokens": 14 + key % 5, "ignore_eos": True} | WAYS[key % len(WAYS)]
        sampling = Sampling(**way)
        own = [(31 * at + 7 * key) % 300 for at in range(3 + key)]
        adapter = adapters[key % 4]
        made.append(
            GenerationRequest(
                key=key,
                prompt_ids=(*BEGINNING, *own, *BEGINNING[:5], *own[:7]),
                sampling=sampling,
                seed=1_000 + key,
                adapter=adapter,
                active_from=12 if adapter is one and key > 8 else 0,
                constraint=None
                if sampling.constraint is None
                else compiler.compile(sampling.constraint),
            )
        )
    compiler.close()
    return made


def engine_of(path: Path, drafts: Speculation | None = None, **changes: Any) -> Engine:
    """Load a model of its own into an engine."""
    config = replace(CONFIG, **changes)
    return Engine(load_backbone(path, "cpu", config.dtype), config, speculation=drafts)


@pytest.fixture(scope="module")
def expected(path: Path, jobs: list[GenerationRequest]) -> dict[int, list[Output]]:
    """Answer them without drafts."""
    outputs = finish(engine_of(path), *jobs)
    ends = {output.finish for own in outputs.values() for output in own}
    assert ends == {None, "stop", "length"}
    assert all(output.error is None for own in outputs.values() for output in own)
    return outputs


def ids(outputs: Iterable[Output]) -> list[int]:
    """Tokens of the outputs, joined."""
    return [token for output in outputs for token in output.ids]


def answers_of(outputs: Mapping[int, list[Output]]) -> dict[int, list[int]]:
    """Tokens of all, by key."""
    return {key: ids(own) for key, own in outputs.items()}


@pytest.mark.parametrize(
    ("kind", "backend"), [*((kind, "torch") for kind in KINDS), ("random", "auto")]
)
def test_outputs_are_those_without_drafts(
    kind: Kind,
    backend: Any,
    path: Path,
    jobs: list[GenerationRequest],
    expected: dict[int, list[Output]],
) -> None:
    """Tokens, text pieces, log probabilities, ends and errors, one by one, whatever is guessed."""
    speculation = always(kind, MOST, answers_of(expected), VOCABULARY)
    engine = engine_of(path, speculation, backend=backend)
    if backend == "auto":
        expected = finish(engine_of(path, backend=backend), *jobs)
    assert finish(engine, *jobs) == expected
    stats = engine.stats()
    assert stats.drafted > 20
    if kind == "right":
        assert stats.accepted > 0.7 * stats.drafted  # an answer's own end is not in it
    if kind == "wrong":
        assert stats.accepted == 0
    assert stats.kv_blocks_used == 0


def long(jobs: list[GenerationRequest], **more: Any) -> list[GenerationRequest]:
    """Ask for long greedy answers."""
    sampling = Sampling(max_tokens=60, temperature=0.0, ignore_eos=True, **more)
    return [replace(job, constraint=None, sampling=sampling) for job in jobs[:3]]


def test_rows_that_repeat_themselves_take_fewer_steps(
    path: Path, jobs: list[GenerationRequest]
) -> None:
    """As configured: drafts from the row's own tokens, where they pay."""
    bare, drafting = engine_of(path), engine_of(path, speculation=MOST)
    same = long(jobs, logit_bias={"7": 100.0})
    assert finish(drafting, *same) == finish(bare, *same)
    assert drafting.stats().accepted > 3 * 40
    assert drafting.stats().steps < bare.stats().steps / 3


def test_answers_like_earlier_ones_take_fewer_steps(
    path: Path, jobs: list[GenerationRequest]
) -> None:
    """Of the same adapter, for those alone who find each other's beginnings; tokens stay."""
    sampling = Sampling(max_tokens=40, temperature=1.0, ignore_eos=True)
    first = replace(jobs[1], sampling=sampling, constraint=None, salt="acme")
    others = [replace(first, salt="beta"), replace(first, adapter=jobs[2].adapter)]
    bare, drafting = engine_of(path), engine_of(path, speculation=MOST)

    def steps(job: GenerationRequest) -> int:
        before = drafting.stats().steps
        assert finish(drafting, job) == finish(bare, job)
        return drafting.stats().steps - before

    unknown = steps(first)
    assert unknown > 30
    assert steps(others[0]) == unknown
    assert steps(others[1]) > 30
    assert steps(first) < unknown / 3


def test_rows_that_are_guessed_wrong_stop_drafting(
    path: Path, jobs: list[GenerationRequest]
) -> None:
    """What is paid for it does not grow with the answer."""
    bare = engine_of(path)
    expected = finish(bare, *long(jobs))
    wrong = Speculation(MOST, Told(answers_of(expected), "wrong", VOCABULARY))
    engine = engine_of(path, wrong)
    assert finish(engine, *long(jobs)) == expected
    assert engine.stats().steps == bare.stats().steps
    assert 0 < engine.stats().drafted < 3 * 20


def test_preempted_and_cancelled_among_drafts(
    path: Path, jobs: list[GenerationRequest], expected: dict[int, list[Output]]
) -> None:
    """A scarce cache, other budgets, jobs that come and go: nobody else sees it."""
    preempted = 0
    for seed in range(2):
        random = Random(seed)
        speculation = always("random", 1 + 3 * seed, answers_of(expected), VOCABULARY)
        engine = engine_of(path, speculation, kv_tokens=120 + 24 * seed, max_step_tokens=9 + seed)
        outputs: dict[int, list[Output]] = {job.key: [] for job in jobs}
        waiting, cancelled = random.sample(jobs, len(jobs)), set[int]()
        while waiting or engine.has_work:
            if waiting and random.random() < 0.4:
                engine.submit(waiting.pop())
            if random.random() < 0.03:
                cancelled.add(random.choice(jobs).key)
                engine.cancel(max(cancelled))
            for output in engine.step():
                outputs[output.key].append(output)
        for key, own in outputs.items():
            assert own == expected[key][: len(own)]
            assert key in cancelled or len(own) == len(expected[key])
        preempted += engine.stats().preemptions
        assert engine.stats().kv_blocks_used == engine.stats().slots_used == 0
        assert engine.stats().accepted > 0
    assert preempted > 0


def test_an_answer_goes_on_from_any_index(
    path: Path, jobs: list[GenerationRequest], expected: dict[int, list[Output]]
) -> None:
    """Taken over after any token, in the middle of what had been a draft: the rest is the rest."""
    resumed: list[GenerationRequest] = []
    rests: dict[int, tuple[list[Output], int]] = {}
    for job in jobs[: len(WAYS)]:
        whole = expected[job.key]
        cuts = range(1, len(ids(whole)) if job.sampling.prompt_logprobs is None else 1)
        for key, cut in enumerate(cuts, len(resumed)):
            resumed.append(replace(job, key=key, resume_ids=tuple(ids(whole)[:cut])))
            rests[key] = whole, cut
    answers = {key: ids(whole) for key, (whole, _) in rests.items()}
    engine = engine_of(path, always("random", MOST, answers, VOCABULARY))
    outputs = finish(engine, *resumed)
    for key, (whole, cut) in rests.items():
        assert outputs[key] == [replace(output, key=key) for output in whole[cut:]]
    assert engine.stats().accepted > 100


def test_a_batch_that_cannot_be_sampled_from_is_sampled_row_by_row(
    path: Path,
    jobs: list[GenerationRequest],
    expected: dict[int, list[Output]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At any place of a draft: the rows get what they would have got."""
    calls = 0

    def failing(logits: Any, rows: Any, *more: Any) -> Any:
        nonlocal calls
        calls += 1
        if len(rows) > 1 and calls % 3 == 0:
            logits.fill_(7)
            raise RuntimeError("no")
        return sample(logits, rows, *more)

    monkeypatch.setattr("aril.worker.engine.step_sampling.sample", failing)
    engine = engine_of(path, always("right", MOST, answers_of(expected), VOCABULARY))
    asked = [job for job in jobs if job.constraint is None]
    outputs = finish(engine, *asked)
    assert outputs == {key: expected[key] for key in outputs}


class Poison:
    """Proposes one token, again and again."""

    def __init__(self, token: int) -> None:
        self._token = token

    def propose(self, _sequence: TokenSequence, _earlier: NgramIndex) -> Iterator[tuple[int, int]]:
        """Propose it."""
        return repeat((self._token, len(FIRST_RATES) - 1))


def plain(jobs: list[GenerationRequest]) -> list[tuple[GenerationRequest, dict[str, Any]]]:
    """Return some jobs with what they are asked to do in short."""
    return [
        (job, {"max_tokens": 8, "temperature": temperature, "ignore_eos": True, "top_k": 20})
        for job, temperature in zip(jobs[:4], (0.0, 1.0, 0.0, 1.0), strict=True)
    ]


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("invariant", [False, True])
def test_a_draft_that_spoils_its_row_is_taken_back(
    backend: Any, invariant: bool, path: Path, jobs: list[GenerationRequest]
) -> None:
    """A guess whose keys and values are no numbers: the answer goes on as if it had not been."""
    poison = 383
    asked = [replace(job, constraint=None, sampling=Sampling(**way)) for job, way in plain(jobs)]

    def poisoned(speculation: Speculation | None) -> Engine:
        backbone = load_backbone(path, "cpu", torch.float32)
        backbone.model.get_input_embeddings().weight.data[poison] = torch.nan
        config = replace(CONFIG, backend=backend, invariant=invariant)
        return Engine(backbone, config, speculation=speculation)

    engine = poisoned(Always(MOST, Poison(poison)))
    outputs = finish(engine, *asked)
    assert outputs == finish(poisoned(None), *asked)
    assert all(own[-1].finish == "length" for own in outputs.values())
    assert engine.stats().drafted > 0
    assert engine.stats().accepted == 0
    for stack in engine._cache._stacks:
        assert bool(stack.isfinite().all())
