"""RoPE and chunks that go by a sequence's own length and places, whoever is beside it.

The reference is transformers' own forward over the whole of a sequence, alone and at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from packaging.version import Version

from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import adopt_backbone
from aril.worker.engine.request import GenerationRequest
from tests.support.backbones import make_tiny_backbone
from tests.support.peft_reference import Comparison, EngineRuns, Run, generate
from tests.support.tiny import make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from aril.worker.engine.request import Output

SWITCH = 24
FACTORS = {
    "short_factor": [1.0 + at / 8 for at in range(8)],
    "long_factor": [3.0 + at for at in range(8)],
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": SWITCH,
    "short_factor": [1.0 + at / 8 for at in range(8)],
    "long_factor": [3.0 + at for at in range(8)],
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
CHANGES: dict[str, dict[str, Any]] = {
    "phi3": {
        "rope_parameters": LONGROPE | {"partial_rotary_factor": 1.0},
        "original_max_position_embeddings": SWITCH,
    },
    "llama": {"rope_parameters": LONGROPE},
    "phimoe": {
        "rope_parameters": LONGROPE | {"short_mscale": 1.1, "long_mscale": 1.3},
        "original_max_position_embeddings": SWITCH,
    },
    "llama4_text": {"attention_chunk_size": 8, "floor_scale": 4, "attn_scale": 0.5},
    "gemma3_text": {
        "rope_parameters": {
            "full_attention": LONGROPE,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        }
    },
    "qwen2": {"rope_parameters": DYNAMIC},
}
# Beyond the switch, up to it and over it, one token below it, and never there.
PROMPTS = [range(5, 45), range(9, 29), range(100, 123), range(60, 65)]
TOKENS = 12
LIMITS: dict[str, Any] = {
    "max_rows": 4,
    "max_step_tokens": 12,
    "slots": 1,
    "max_rank": 4,
    "kv_tokens": 256,
}


def reference(model: PreTrainedModel, prompt: Sequence[int], ids: Sequence[int]) -> Run:
    """Return the logits that each token of an answer is chosen by, one whole forward each."""
    whole = [*prompt, *ids]
    with torch.no_grad():
        logits = [
            model(input_ids=torch.tensor([whole[: len(prompt) + at]]), use_cache=False).logits[
                0, -1
            ]
            for at in range(len(ids))
        ]
    return Run([int(row.argmax()) for row in logits], torch.stack(logits))


def engine_of(kind: str, **limits: Any) -> Engine:
    """Start an engine whose steps cut the longer prompts into pieces."""
    backbone = adopt_backbone(
        make_tiny_backbone(kind, **CHANGES[kind]), make_tokenizer(), "cpu", name=kind
    )
    return Engine(backbone, EngineConfig(**(LIMITS | limits)))


def finish(engine: Engine, prompt: tuple[int, ...], visible: tuple[int, ...]) -> list[Output]:
    """Go on behind what is visible of a greedy answer."""
    engine.submit(
        GenerationRequest(
            key=0,
            prompt_ids=prompt,
            sampling=EngineRuns.greedy(TOKENS),
            seed=0,
            adapter=None,
            resume_ids=visible,
        )
    )
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    return outputs


@pytest.mark.parametrize("kind", CHANGES)
def test_answers_are_those_of_the_sequence_alone(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four prompts at once, in pieces, some of which grow over the switch."""
    if kind == "gemma3_text" and Version(transformers.__version__) < Version("5.23"):
        pytest.skip("transformers raises where longrope is of some layers only (seen in 5.17)")
    engine = engine_of(kind)
    changes = kind in {"phi3", "llama", "phimoe", "gemma3_text"}
    assert engine.backbone.rope.switch == (SWITCH if changes else None)
    runs = EngineRuns.recording(engine, monkeypatch).generate(
        [(tuple(prompt), None) for prompt in PROMPTS], TOKENS
    )
    own = make_tiny_backbone(kind, **CHANGES[kind])
    comparison = Comparison()
    for prompt, run in zip(PROMPTS, runs, strict=True):
        comparison.check(f"{kind} {prompt}", run, reference(own, prompt, run.ids))
    assert comparison.steps > TOKENS * len(PROMPTS) * 0.8, comparison.near_ties


def test_the_references_rope_changes_with_length() -> None:
    """Or nothing above would show: one token more, and the first one's logits are others."""
    own = make_tiny_backbone("phi3", **CHANGES["phi3"])
    ids = torch.arange(5, 6 + SWITCH)[None]
    with torch.no_grad():
        short, long = (
            own(input_ids=some, use_cache=False).logits[0, :20] for some in (ids[:, :-1], ids)
        )
    assert (short - long).abs().max() > 0.1


def test_preemption_and_resuming_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small cache, and answers taken over before, at and behind the switch: the same tokens."""
    jobs = [(tuple(prompt), None) for prompt in PROMPTS]
    expected = EngineRuns.recording(engine_of("phi3"), monkeypatch).generate(jobs, TOKENS)
    scarce = engine_of("phi3", kv_tokens=72, kv_block=4)
    found = EngineRuns.recording(scarce, monkeypatch).generate(jobs, TOKENS)
    assert [run.ids for run in found] == [run.ids for run in expected]
    assert scarce.stats().preemptions > 0
    for visible in (3, 4, 5, 7):
        whole = expected[1].ids
        outputs = finish(engine_of("phi3"), tuple(PROMPTS[1]), tuple(whole[:visible]))
        ids = [token for output in outputs for token in output.ids]
        assert ids == whole[visible:]


@pytest.mark.parametrize("kind", ["llama", "cohere"])
def test_dynamic_frequencies_are_those_of_generate(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the length that a model was made for, prompts in pieces and mixed, and resumed."""
    changes: dict[str, Any] = {"rope_parameters": DYNAMIC, "max_position_embeddings": SWITCH}

    def engine() -> Engine:
        model = make_tiny_backbone(kind, **changes)
        backbone = adopt_backbone(model, make_tokenizer(), "cpu", name=kind)
        assert backbone.max_positions == 4 * SWITCH
        return Engine(backbone, EngineConfig(**LIMITS))

    jobs = [(tuple(prompt), None) for prompt in PROMPTS]
    runs = EngineRuns.recording(engine(), monkeypatch).generate(jobs, TOKENS)
    comparison = Comparison()
    for (prompt, _), run in zip(jobs, runs, strict=True):
        own = make_tiny_backbone(kind, **changes)  # a new one: it would remember the longest
        expected = generate(own, prompt, TOKENS)
        comparison.check(f"{kind} {prompt[0]}", run, expected)
    assert comparison.steps > TOKENS * len(PROMPTS) * 0.8, comparison.near_ties
    for (prompt, _), run in zip(jobs[:3], runs, strict=False):
        resumed = [
            token for output in finish(engine(), prompt, tuple(run.ids[:5])) for token in output.ids
        ]
        assert resumed == run.ids[5:]
