"""Real engines that find beginnings in their cache: the answers are those without it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.schemas import Sampling
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.mixture import mix
from aril.worker.engine.model import load_backbone
from aril.worker.engine.request import GenerationRequest
from tests.support.engine_runs import finish
from tests.support.tiny import Architecture, make_tiny_model
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.config import Backend
    from aril.worker.engine.mixture import Mixture
    from aril.worker.engine.request import Output

CONFIG = EngineConfig(
    max_rows=6,
    max_step_tokens=48,
    slots=3,
    max_rank=8,
    kv_tokens=2_048,
    kv_block=8,
    backend="torch",
)
SYSTEM = tuple((17 * at + 3) % 300 for at in range(43))
GREEDY = Sampling(max_tokens=6, temperature=0.0, ignore_eos=True)
SAMPLED = Sampling(max_tokens=6, temperature=0.9, logprobs=3, ignore_eos=True)


def engine_of(path: Path, **changes: Any) -> Engine:
    """Load a model of its own into an engine."""
    return Engine(load_backbone(path, "cpu", torch.float32), replace(CONFIG, **changes))


def job(
    key: int, adapter: AdapterWeights | Mixture | None = None, **more: Any
) -> GenerationRequest:
    """Ask behind the same beginning, each for its own end."""
    prompt = (*SYSTEM, *((31 * at + 7 * key) % 300 for at in range(1 + key % 5)))
    fields: dict[str, Any] = {"sampling": GREEDY, "seed": key, "prompt_ids": prompt} | more
    return GenerationRequest(key=key, adapter=adapter, **fields)


def bits(outputs: dict[int, list[Output]]) -> dict[int, list[tuple[Any, ...]]]:
    """Return all that the model computed of each answer, to the last bit."""
    return {
        key: [(each.ids, each.logprobs, each.finish) for each in own]
        for key, own in outputs.items()
    }


def mixed(path: Path) -> list[AdapterWeights | Mixture | None]:
    """Nobody's, two adapters, both together, and one that is invoked within."""
    shapes = load_backbone(path, "cpu", torch.float32).linear_shapes
    one, two = (random_adapter(shapes, name, rank=4) for name in ("one", "two"))
    return [None, one, two, mix((one, two), (0.5, 0.7)), mix((two, one), (0.7, 0.5))]


@pytest.mark.parametrize("arch", ["llama", "gemma"])
def test_hits_change_no_bit_in_invariant_mode(arch: Architecture, tmp_path: Path) -> None:
    """Together and one after the other, found and not found: equal ids and log probabilities."""
    path = make_tiny_model(tmp_path, arch, num_hidden_layers=2)
    adapters = mixed(path)
    jobs = [job(key, adapters[key % 5], sampling=SAMPLED) for key in range(10)]
    jobs += [job(10 + key, adapters[1 + key % 2], active_from=20 + key) for key in range(4)]
    off = engine_of(path, invariant=True, prefix_cache=False)
    expected = bits(finish(off, *jobs))
    assert off.stats().prefix_tokens == off.stats().kv_blocks_named == 0
    on = engine_of(path, invariant=True)
    assert bits(finish(on, *jobs)) == expected
    found = on.stats().prefix_tokens
    assert found >= 5 * 40
    for each in reversed(jobs):
        assert bits(finish(on, each)) == {each.key: expected[each.key]}
    assert on.stats().prefix_tokens >= found + 14 * 40
    scarce = engine_of(path, invariant=True, kv_tokens=120, kv_block=4)
    assert bits(finish(scarce, *jobs)) == expected
    assert scarce.stats().kv_blocks_reclaimed > 0


def test_tokens_are_the_same_in_fast_mode(tmp_path: Path) -> None:
    """Greedy answers behind a found beginning are those of an engine that computes all."""
    path = make_tiny_model(tmp_path, num_hidden_layers=2)
    adapters = mixed(path)
    jobs = [job(key, adapters[key % 5]) for key in range(10)]
    expected = bits(finish(engine_of(path, prefix_cache=False), *jobs))
    engine = engine_of(path)
    for _ in range(2):
        assert bits(finish(engine, *jobs)) == expected
    assert engine.stats().prefix_tokens >= 15 * 40
    assert engine.stats().kv_blocks_used == 0


def test_other_content_under_a_known_name_is_computed(tmp_path: Path) -> None:
    """A tenant uploads an adapter anew: nothing that the old one computed is found."""
    path = make_tiny_model(tmp_path, num_hidden_layers=2)
    engine = engine_of(path, slots=1)  # the new one even gets the old one's slot
    shapes = engine.backbone.linear_shapes
    old = random_adapter(shapes, "same", seed=1)
    new = replace(random_adapter(shapes, "same", seed=2), digest="other")
    finish(engine, job(0, old))
    answer = bits(finish(engine, job(0, new)))
    assert engine.stats().prefix_tokens == 0
    assert answer == bits(finish(engine_of(path, slots=1), job(0, new)))
    assert answer != bits(finish(engine, job(0, old)))
    assert engine.stats().prefix_tokens == 40  # after two others' turns in its slot


def test_an_adapter_gone_wrong_spoils_its_own_blocks_only(tmp_path: Path) -> None:
    """Its keys are not finite; nobody finds them, nor what is left of them in a block."""
    path = make_tiny_model(tmp_path, num_hidden_layers=2)
    engine = engine_of(path, kv_tokens=64)
    shapes = engine.backbone.linear_shapes
    wrong = random_adapter(shapes, "wrong", scaling=1e30)
    for _ in range(2):
        (output,) = finish(engine, job(0, wrong))[0]
        assert output.error is not None
    assert engine.stats().kv_blocks_named == 0
    expected = bits(finish(engine_of(path), job(1)))
    assert bits(finish(engine, job(1))) == expected


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_an_invoked_adapter_gone_wrong_spoils_nothing_before_it(
    backend: Backend, tmp_path: Path
) -> None:
    """What it is invoked behind is the backbone's: others find it whole, or compute it."""
    path = make_tiny_model(tmp_path, num_hidden_layers=4)
    engine = engine_of(path, backend=backend)
    wrong = random_adapter(engine.backbone.linear_shapes, "wrong", scaling=1e30)
    (output,) = finish(engine, job(0, wrong, active_from=42))[0]
    assert output.error is not None
    fresh = engine_of(path, backend=backend, prefix_cache=False)
    assert bits(finish(engine, job(1))) == bits(finish(fresh, job(1)))
    assert bits(finish(engine, job(2))) == bits(finish(fresh, job(2)))
    assert engine.stats().prefix_tokens == 40  # of the good one


def test_a_shared_block_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While others hold it, keys and values keep their bits, in every layer and step."""
    engine = engine_of(make_tiny_model(tmp_path, num_hidden_layers=2))
    cache, blocks = engine._cache, engine._scheduler.blocks
    known: dict[bytes, list[torch.Tensor]] = {}
    seen = 0
    plan = engine._scheduler.plan

    def watched() -> Any:
        nonlocal seen
        for name, block in blocks._named.items():
            now = [each[block].clone() for side in (cache.k, cache.v) for each in side.values()]
            before = known.setdefault(name, now)
            assert all(map(torch.equal, before, now))
            seen += blocks.holders(block) > 1
        return plan()

    monkeypatch.setattr(engine._scheduler, "plan", watched)
    for _ in range(2):
        finish(engine, *(job(key) for key in range(6)))
    assert seen > 5 * 5


def test_a_told_prompt_is_told_of_whole(tmp_path: Path) -> None:
    """What its tokens' logits say does not depend on what others had computed of it."""
    path = make_tiny_model(tmp_path, num_hidden_layers=2)
    told = job(0, sampling=Sampling(max_tokens=2, prompt_logprobs=1))
    engine = engine_of(path, invariant=True)
    finish(engine, job(0))
    found = finish(engine, told)[0][-1].prompt_logprobs
    assert found is not None
    assert len(found) == len(told.prompt_ids)
    fresh = engine_of(path, invariant=True, prefix_cache=False)
    assert found == finish(fresh, told)[0][-1].prompt_logprobs


def test_what_a_job_computed_is_found_as_it_goes_on_under_another_key(tmp_path: Path) -> None:
    """Its row went to somebody else: of prompt and answer all but the last block is there."""
    engine = engine_of(make_tiny_model(tmp_path), invariant=True)
    request = job(1, sampling=SAMPLED.model_copy(update={"max_tokens": 24}))
    whole = [token for out in finish(engine, request)[1] for token in out.ids]
    engine = engine_of(tmp_path, invariant=True)
    engine.submit(request)
    brought: list[int] = []
    while len(brought) < 15:
        brought += [token for out in engine.step() for token in out.ids]
    engine.cancel(1)
    assert engine.stats().prefix_tokens == 0
    again = finish(engine, replace(request, key=2, resume_ids=tuple(brought)))[2]
    assert brought + [token for out in again for token in out.ids] == whole
    known = len(request.prompt_ids) + len(brought)
    assert known - engine.stats().prefix_tokens <= CONFIG.kv_block
