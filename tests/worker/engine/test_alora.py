"""Adapters that work from their invocation on: PEFT's answers to the whole prompt, however cut."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.schemas import Sampling
from aril.worker.adapters import AdapterStore
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from aril.worker.engine.request import GenerationRequest
from tests.support.peft_reference import Comparison, EngineRuns, Reference
from tests.support.tiny import ALL_LINEARS, make_tiny_adapter, make_tiny_model
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from aril.schemas import PromptLogprobs
    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.request import Output

TOKENS = 6
INVOCATION = (301, 17)
LONG = tuple((17 * at + 3) % 300 for at in range(70))
PROMPTS = {
    "in the middle": (*LONG[:40], *INVOCATION, *LONG[40:]),
    "twice": (*LONG[:10], *INVOCATION, *LONG[:30], *INVOCATION, *LONG[:9]),
    "at the end": (*LONG, *INVOCATION),
    "at the start": (*INVOCATION, *LONG[:20]),
    "nowhere": LONG,
    "half of it": (*LONG[:20], INVOCATION[0], *LONG[:20]),
}
CONFIG = EngineConfig(
    max_rows=24, max_step_tokens=48, slots=3, max_rank=8, kv_tokens=2_048, backend="torch"
)


def test_answers_are_pefts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks that cut prompts anywhere, beside plain adapters and the backbone, in one batch."""
    model = make_tiny_model(tmp_path / "model")
    home = tmp_path / "store" / "acme"
    paths = {
        "alora": make_tiny_adapter(
            home / "alora",
            model,
            targets=(*ALL_LINEARS, "lm_head"),
            alora_invocation_tokens=list(INVOCATION),
        ),
        "plain": make_tiny_adapter(home / "plain", model),
    }
    reference = Reference(model, paths)
    backbone = load_backbone(model, "cpu", torch.float32)
    store = AdapterStore(
        tmp_path / "store",
        base_model=None,
        linear_shapes=backbone.linear_shapes,
        max_rank=8,
        own=backbone.own_weights,
    )
    adapters = {name: store.load(store.find("acme", name)) for name in paths} | {None: None}
    runs = EngineRuns.recording(Engine(backbone, CONFIG), monkeypatch)
    jobs = [(place, name) for place in PROMPTS for name in adapters]
    found = runs.generate([(PROMPTS[place], adapters[name]) for place, name in jobs], TOKENS)
    comparison = Comparison()
    for (place, name), ours in zip(jobs, found, strict=True):
        expected = reference.generate(PROMPTS[place], name, TOKENS)
        comparison.check(f"{name}, {place}", ours, expected)
    assert comparison.steps >= 0.9 * len(jobs) * TOKENS, comparison.near_ties
    logits = {job: run.logits for job, run in zip(jobs, found, strict=True)}
    for place in PROMPTS:
        # Neither the backbone's answer nor the plain adapter's, but where there is no invocation.
        change = float((logits[place, "alora"][0] - logits[place, None][0]).abs().max())
        assert (change < 1e-3) is (place in {"nowhere", "half of it"}), place


def request_of(key: int, prompt: tuple[int, ...], adapter: AdapterWeights | None) -> Any:
    """Ask for a sampled answer with logprobs: bits show in them before they show in tokens."""
    start = 0 if adapter is None else adapter.active_from(prompt)
    return GenerationRequest(
        key=key,
        prompt_ids=prompt,
        sampling=Sampling(max_tokens=24, temperature=0.9, logprobs=3, ignore_eos=True),
        seed=key,
        adapter=None if start is None else adapter,
        active_from=start or 0,
    )


def answers(engine: Engine, *requests: GenerationRequest) -> dict[int, list[tuple[Any, ...]]]:
    """Run until all is answered; return ids and logprobs of each step."""
    found: dict[int, list[Output]] = {request.key: [] for request in requests}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        for output in engine.step():
            assert output.error is None
            found[output.key].append(output)
    return {
        key: [(each.ids, each.logprobs) for each in outputs if each.ids]
        for key, outputs in found.items()
    }


def test_cuts_resumes_and_preemptions_change_no_bit(tmp_path: Path) -> None:
    """Invariant mode: whatever cuts a prompt or an answer, the bits are the uncut one's.

    The answer that is resumed holds the invocation: only prompts are searched.
    """
    path = make_tiny_model(tmp_path, num_hidden_layers=1)
    shapes = load_backbone(path, "cpu", torch.float32).linear_shapes
    plain = random_adapter(shapes, "plain", rank=8)
    alora = replace(random_adapter(shapes, "alora", rank=4), invocation=INVOCATION)

    def engine(**changes: Any) -> Engine:
        config = replace(CONFIG, invariant=True, **changes)
        return Engine(load_backbone(path, "cpu", torch.float32), config)

    wanted = [request_of(at, prompt, alora) for at, prompt in enumerate(PROMPTS.values())]
    others = [request_of(100 + n, LONG[: 20 + n], (plain, None)[n % 2]) for n in range(6)]
    uncut = engine(max_step_tokens=512)
    whole = {each.key: answers(uncut, each)[each.key] for each in wanted}
    for changes in ({"max_step_tokens": 29}, {"max_rows": 7, "max_step_tokens": 33}):
        mixed = answers(engine(**changes), *others, *wanted)
        assert {key: mixed[key] for key in whole} == whole
    small = engine(kv_tokens=200, kv_block=4, max_step_tokens=40)
    mixed = answers(small, *wanted)
    assert mixed == whole
    assert small.stats().preemptions > 0
    for each in wanted[:2]:
        ids = tuple(ids[0] for ids, _ in whole[each.key])
        for cut in (1, 17):
            resumed = replace(each, resume_ids=ids[:cut])
            assert answers(small, resumed, *others)[each.key] == whole[each.key][cut:]
        echo = replace(each, resume_ids=INVOCATION)
        assert answers(small, echo)[each.key] == answers(uncut, echo)[each.key]


def test_an_adapter_from_past_the_prompt_on_is_refused(tmp_path: Path) -> None:
    """It is a caller's mistake: no token of the prompt would be its own."""
    path = make_tiny_model(tmp_path, num_hidden_layers=1)
    engine = Engine(load_backbone(path, "cpu", torch.float32), CONFIG)
    with pytest.raises(ValueError, match="from token 3"):
        engine.submit(replace(request_of(1, (1, 2, 3), None), active_from=3))


def test_a_prompt_is_told_of_by_what_works_there(tmp_path: Path) -> None:
    """Log probabilities up to the invocation are the backbone's own, those behind are not.

    With LoRA on the output too, and chunks that cut the prompt before, in and behind it.
    """
    path = make_tiny_model(tmp_path, num_hidden_layers=1)
    shapes = load_backbone(path, "cpu", torch.float32).linear_shapes
    targets = [name.rpartition(".")[2] for name in shapes]
    alora = replace(random_adapter(shapes, "alora", rank=4, targets=targets), invocation=INVOCATION)
    prompt = PROMPTS["in the middle"]

    def told(adapter: AdapterWeights | None, **changes: Any) -> PromptLogprobs:
        config = replace(CONFIG, invariant=True, **changes)
        engine = Engine(load_backbone(path, "cpu", torch.float32), config)
        sampling = Sampling(max_tokens=1, prompt_logprobs=1)
        engine.submit(replace(request_of(0, prompt, adapter), sampling=sampling))
        outputs = []
        while engine.has_work:
            outputs += engine.step()
        rows = outputs[-1].prompt_logprobs
        assert rows is not None
        return rows

    bare, whole = told(None), told(alora)
    start = alora.active_from(prompt)
    assert start is not None
    # The logits of the token before the invocation tell of its first one.
    same = [ours == theirs for ours, theirs in zip(whole, bare, strict=True)]
    assert same == [at <= start for at in range(len(prompt))]
    for step in (start - 1, start + 1, 7):
        assert told(alora, max_step_tokens=max(step, CONFIG.max_rows)) == whole
