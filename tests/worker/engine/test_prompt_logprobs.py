"""Log probabilities of prompts: those of transformers, however the prompt came to be computed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.schemas import PromptLogprobs, Sampling
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from aril.worker.engine.prompt_rows import PromptRows
from aril.worker.engine.request import GenerationRequest, Output
from aril.worker.engine.sampler import sample
from tests.support.engine_runs import finish
from tests.support.tiny import make_tiny_model
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.filled_blocks import Forwarded
    from aril.worker.engine.model import Backbone
    from aril.worker.engine.step_plan import StepPlan

PROMPT = tuple((29 * at + 5) % 384 for at in range(40))
LIMITS: dict[str, Any] = {
    "max_rows": 4,
    "max_step_tokens": 24,
    "slots": 2,
    "max_rank": 4,
    "kv_tokens": 256,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one model."""
    return make_tiny_model(tmp_path_factory.mktemp("prompts") / "model")


def load(folder: Path) -> Backbone:
    """Load it anew: an engine takes it over."""
    return load_backbone(folder, "cpu", torch.float32)


def request(key: int, prompt: tuple[int, ...] = PROMPT, **given: Any) -> GenerationRequest:
    """Ask for four tokens, and what is told of the prompt."""
    resume, adapter = given.pop("resume_ids", ()), given.pop("adapter", None)
    sampling = Sampling(**({"max_tokens": 4, "temperature": 0.0, "ignore_eos": True} | given))
    return GenerationRequest(
        key=key, prompt_ids=prompt, sampling=sampling, seed=0, adapter=adapter, resume_ids=resume
    )


def told(outputs: list[Output]) -> PromptLogprobs | None:
    """Return what came with the end, and nothing before it."""
    assert outputs[-1].error is None
    assert all(output.prompt_logprobs is None for output in outputs[:-1])
    return outputs[-1].prompt_logprobs


def check(rows: PromptLogprobs | None, logits: Tensor, prompt: tuple[int, ...], top: int) -> None:
    """Compare with a log-softmax of a plain forward's logits [tokens, vocab]."""
    assert rows is not None
    assert len(rows) == len(prompt)
    assert rows[0] is None
    expected = logits.float().log_softmax(-1)
    for at, row in enumerate(rows[1:]):
        assert row is not None
        assert row.chosen == pytest.approx(float(expected[at, prompt[at + 1]]), abs=2e-4)
        values, ids = expected[at].topk(top)
        assert [token for token, _ in row.top] == ids.tolist()
        assert [value for _, value in row.top] == pytest.approx(values.tolist(), abs=2e-4)


def test_rows_are_transformers_log_softmax(folder: Path) -> None:
    """In pieces, beside a job that did not ask, one of two tokens and one of a single one."""
    plain = load(folder)
    engine = Engine(load(folder), EngineConfig(**LIMITS))
    outputs = finish(
        engine,
        request(0, prompt_logprobs=5),
        request(1),
        request(2, PROMPT[:2], prompt_logprobs=0, logprobs=2),
        request(3, PROMPT[:1], prompt_logprobs=20),
    )
    logits = plain.plain_forward(torch.tensor(PROMPT))
    check(told(outputs[0]), logits, PROMPT, 5)
    assert told(outputs[1]) is None
    check(told(outputs[2]), logits, PROMPT[:2], 0)
    assert told(outputs[3]) == (None,)
    ids = {key: [token for each in made for token in each.ids] for key, made in outputs.items()}
    assert ids[0] == ids[1]
    assert len(ids[0]) == 4


def test_an_adapter_changes_them(folder: Path) -> None:
    """Rows of an adapter are its own, also where it changes the logits' own linear."""
    backbone = load(folder)
    adapter: AdapterWeights = random_adapter(
        backbone.linear_shapes, "a", targets=("q_proj", "lm_head")
    )
    engine = Engine(backbone, EngineConfig(**LIMITS))
    outputs = finish(
        engine, request(0, prompt_logprobs=1), request(1, prompt_logprobs=1, adapter=adapter)
    )
    own, changed = told(outputs[0]), told(outputs[1])
    check(own, load(folder).plain_forward(torch.tensor(PROMPT)), PROMPT, 1)
    alone = told(finish(engine, request(2, prompt_logprobs=1, adapter=adapter))[2])
    assert changed is not None
    assert alone is not None
    for one, other in zip(changed[1:], alone[1:], strict=True):
        assert one is not None
        assert other is not None
        assert one.chosen == pytest.approx(other.chosen, abs=2e-4)
        assert one.top[0][0] == other.top[0][0]
    assert changed != own


def test_a_step_makes_few_logits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary a place: never more places than rows, and those that are sampled."""
    engine = Engine(load(folder), EngineConfig(**LIMITS))
    made: list[int] = []
    forward = engine._sample._forward

    def counting(plan: StepPlan) -> Forwarded:
        step = forward(plan)
        made.append(len(step.logits))
        return step

    monkeypatch.setattr(engine._sample, "_forward", counting)
    outputs = finish(engine, *(request(key, prompt_logprobs=0) for key in range(4)))
    assert [len(told(each) or ()) for each in outputs.values()] == [len(PROMPT)] * 4
    # One place at least for each row, so that each advances, and a sample for each that is due.
    assert max(made) <= LIMITS["max_rows"] + LIMITS["max_rows"] - 1 + LIMITS["max_rows"]
    assert sum(made) == 4 * (len(PROMPT) - 1) + 4 * 4


def test_preemption_tells_nothing_twice(folder: Path) -> None:
    """A sequence that loses its blocks is computed again, and its prompt is told of once."""
    expected = finish(Engine(load(folder), EngineConfig(**LIMITS)), request(0, prompt_logprobs=2))
    scarce = EngineConfig(**(LIMITS | {"kv_tokens": 96, "kv_block": 4}))
    engine = Engine(load(folder), scarce)
    asked = [request(key, PROMPT, prompt_logprobs=2, max_tokens=28) for key in range(3)]
    outputs = finish(engine, *asked)
    assert engine.stats().preemptions > 0
    logits = load(folder).plain_forward(torch.tensor(PROMPT))
    for made in (*expected.values(), *outputs.values()):
        check(told(made), logits, PROMPT, 2)


@pytest.mark.parametrize("visible", [1, 3, 4])
def test_who_takes_over_tells_them_again(folder: Path, visible: int) -> None:
    """From any place of the answer on, also where all of it was visible and its end was not."""
    whole = finish(Engine(load(folder), EngineConfig(**LIMITS)), request(0, prompt_logprobs=1))
    ids = [token for output in whole[0] for token in output.ids]
    engine = Engine(load(folder), EngineConfig(**LIMITS))
    outputs = finish(engine, request(0, prompt_logprobs=1, resume_ids=tuple(ids[:visible])))
    assert [token for output in outputs[0] for token in output.ids] == ids[visible:]
    assert outputs[0][-1].finish == "length"
    check(told(outputs[0]), load(folder).plain_forward(torch.tensor(PROMPT)), PROMPT, 1)


def test_sampling_that_fails_tells_nothing_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is run again for the rows that can be sampled: a prompt's places were told then."""
    calls = 0

    def failing(*given: Any) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("planted")
        return sample(*given)

    monkeypatch.setattr("aril.worker.engine.step_sampling.sample", failing)
    engine = Engine(load(folder), EngineConfig(**LIMITS))
    outputs = finish(engine, request(0, PROMPT[:3], prompt_logprobs=1), request(1, PROMPT[:2]))
    check(told(outputs[0]), load(folder).plain_forward(torch.tensor(PROMPT)), PROMPT[:3], 1)


def test_a_prompt_without_a_distribution_ends_the_job(folder: Path) -> None:
    """NaN in the logits of a place is told as what it is, not as a number."""
    backbone = load(folder)
    engine = Engine(backbone, EngineConfig(**LIMITS))
    backbone.model.model.embed_tokens.weight[PROMPT[1]] = float("nan")
    outputs = finish(engine, request(0, PROMPT[:3], prompt_logprobs=1), request(1, PROMPT[4:7]))
    assert outputs[0][-1].error is not None
    assert "no probabilities" in outputs[0][-1].error.message
    assert outputs[1][-1].finish == "length"


def test_what_fails_for_one_prompt_ends_one_job(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its neighbour in the step, which asked for nothing, is answered."""

    def failing(_self: PromptRows, _logits: Tensor, _ids: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(PromptRows, "add", failing)
    engine = Engine(load(folder), EngineConfig(**LIMITS))
    outputs = finish(engine, request(0, PROMPT[:3], prompt_logprobs=1), request(1, PROMPT[4:7]))
    assert outputs[0][-1].error is not None
    assert outputs[1][-1].finish == "length"


@pytest.mark.parametrize("step", [5, 64])
def test_a_prompt_keeps_its_frequencies_when_its_answer_is_resumed_beyond_them(
    step: int, tmp_path: Path
) -> None:
    """RoPE switches within the answer: what is told of the prompt is what was told of it before."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": len(PROMPT) + 4,
        "short_factor": [1.0] * 8,
        "long_factor": [3.0 + at for at in range(8)],
    }
    folder = make_tiny_model(tmp_path / "model", rope_parameters=rope)
    limits = LIMITS | {"max_step_tokens": step, "invariant": True}
    engine = Engine(load(folder), EngineConfig(**limits))
    whole = request(0, max_tokens=8, prompt_logprobs=1)
    outputs = finish(engine, whole)[0]
    ids = tuple(token for output in outputs for token in output.ids)
    for seen in (3, 4, 5, 7):
        rest = finish(engine, replace(whole, resume_ids=ids[:seen]))[0]
        assert tuple(token for output in rest for token in output.ids) == ids[seen:]
        assert rest[-1].prompt_logprobs == outputs[-1].prompt_logprobs
