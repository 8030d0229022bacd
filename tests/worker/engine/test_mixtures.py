"""Strength and mixtures: PEFT's `set_scale` and its sum of adapters, in one batch with all else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.schemas import Sampling
from aril.worker.adapters import AdapterStore, AdapterWeights
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.mixture import Mixture, mix
from aril.worker.engine.model import load_backbone
from aril.worker.engine.request import GenerationRequest
from tests.support.peft_reference import Comparison, EngineRuns, Reference
from tests.support.tiny import ALL_LINEARS, ATTENTION, make_tiny_adapter, make_tiny_model
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from aril.worker.engine.config import Backend

TOKENS = 4
PROMPT = tuple((17 * at + 3) % 300 for at in range(20))
WITH_HEAD = (*ALL_LINEARS, "lm_head")
ADAPTERS: dict[str, dict[str, Any]] = {
    "wide": {"rank": 8, "alpha": 8, "targets": WITH_HEAD},
    "attention": {"rank": 3, "alpha": 6, "targets": ATTENTION, "rslora": True},
    "down": {"rank": 5, "alpha": 4, "targets": ("down_proj", "q_proj")},
    "biased": {"rank": 4, "targets": ATTENTION, "lora_bias": True},
    "invoked": {"rank": 4, "targets": ALL_LINEARS, "alora_invocation_tokens": list(PROMPT[8:10])},
    # Last: PEFT loads no adapter without such tokens behind one that has them.
    "tokens": {"rank": 4, "targets": ALL_LINEARS, "trainable_token_indices": [3, 20, 37]},
}
# The first of each is not rank-stabilised: PEFT would multiply the sum by √rank, by mistake.
MIXTURES: dict[str, tuple[Sequence[str], Sequence[float]]] = {
    "two": (("wide", "attention"), (0.7, 0.4)),
    "one taken away": (("wide", "attention"), (-0.5, 1.0)),
    "three": (("down", "attention", "wide"), (0.5, 0.25, 0.5)),
    "twice": (("down", "down"), (0.5, 0.75)),
    "alone": (("down",), (1.5,)),
}
SCALED = [
    *(("wide", scale) for scale in (0.0, 0.5, 2.0)),
    *(("attention", scale) for scale in (1.0, 4.0)),
    *((name, scale) for name in ("biased", "tokens", "invoked") for scale in (0.0, 0.5, 1.0)),
    *(("two", scale) for scale in (1.0, 0.5)),
    *((name, 1.0) for name in MIXTURES if name != "two"),
]


class Case:
    """A model and its adapters, in an engine and in PEFT."""

    def __init__(self, folder: Path, names: Sequence[str], backend: Backend, slots: int) -> None:
        # With biases at q, k, v and o: PEFT wants one where B has one.
        model = make_tiny_model(folder / "model", attention_bias=True, num_hidden_layers=1)
        paths = {
            name: make_tiny_adapter(folder / "store" / "acme" / name, model, seed=seed, **given)
            for seed, (name, given) in enumerate(ADAPTERS.items())
            if name in names
        }
        self.reference = Reference(model, paths)
        backbone = load_backbone(model, "cpu", torch.float32)
        store = AdapterStore(
            folder / "store",
            base_model=None,
            linear_shapes=backbone.linear_shapes,
            max_rank=8,
            own=backbone.own_weights,
        )
        self.adapters: dict[str, AdapterWeights | Mixture] = {
            name: store.load(store.find("acme", name)) for name in paths
        }
        config = EngineConfig(
            max_rows=24,
            max_step_tokens=64,
            slots=slots,
            max_rank=8,
            kv_tokens=24 * 48,
            backend=backend,
        )
        self.engine = Engine(backbone, config)

    def mix(self, mixtures: Mapping[str, tuple[Sequence[str], Sequence[float]]]) -> None:
        """Make mixtures on both sides."""
        for name, (members, weights) in mixtures.items():
            plain: Any = tuple(self.adapters[member] for member in members)
            self.reference.mix(name, members, weights)
            self.adapters[name] = mix(plain, tuple(weights))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # PEFT reads a renamed property
@pytest.mark.parametrize("slots", [3, 6])
def test_answers_are_pefts(slots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one batch, and in few slots: scaled to nothing, mixed, and the backbone beside."""
    case = Case(tmp_path, list(ADAPTERS), "torch", slots)
    case.mix(MIXTURES)
    runs = EngineRuns.recording(case.engine, monkeypatch)
    plain, *found = runs.generate(
        [(PROMPT, None), *((PROMPT, case.adapters[name]) for name, _ in SCALED)],
        TOKENS,
        [1.0, *(scale for _, scale in SCALED)],
    )
    comparison = Comparison()
    comparison.check("backbone", plain, case.reference.generate(PROMPT, None, TOKENS))
    for (name, scale), ours in zip(SCALED, found, strict=True):
        expected = case.reference.generate_scaled(PROMPT, name, scale, TOKENS)
        comparison.check(f"{name}, {scale}", ours, expected)
        change = float((ours.logits[0] - plain.logits[0]).abs().max())
        # Trained tokens stay, however weak the rest of their adapter is.
        assert (change > 0.05) is (scale != 0 or name == "tokens"), (name, scale)
    assert comparison.steps >= 0.9 * (1 + len(SCALED)) * TOKENS, comparison.near_ties


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # as above
@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # the interpreter's
def test_triton_kernels_give_pefts_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that a GPU takes, run by the interpreter: scaled and mixed beside plain rows."""
    case = Case(tmp_path, ["attention", "down"], "triton", 2)
    case.mix({"mixed": (("down", "attention"), (-1.0, 0.5))})
    runs = EngineRuns.recording(case.engine, monkeypatch)
    jobs = [("attention", 0.5), ("mixed", 1.0), ("down", 1.0)]
    found = runs.generate(
        [(PROMPT[:2], case.adapters[name]) for name, _ in jobs], 2, [scale for _, scale in jobs]
    )
    comparison = Comparison()
    for (name, scale), ours in zip(jobs, found, strict=True):
        expected = case.reference.generate_scaled(PROMPT[:2], name, scale, 2)
        comparison.check(name, ours, expected)
    assert comparison.steps == 2 * len(jobs), comparison.near_ties


def request_of(key: int, adapter: AdapterWeights | Mixture | None, scale: float = 1.0) -> Any:
    """Ask for a sampled answer with logprobs: bits show in them before they show in tokens."""
    return GenerationRequest(
        key=key,
        prompt_ids=PROMPT[: 5 + key],
        sampling=Sampling(max_tokens=8, temperature=0.9, logprobs=3, ignore_eos=True),
        seed=key,
        adapter=adapter,
        adapter_scale=scale,
    )


def answers(engine: Engine, *requests: GenerationRequest) -> dict[int, list[tuple[Any, ...]]]:
    """Run until all is answered; return ids and logprobs of each step."""
    found: dict[int, list[tuple[Any, ...]]] = {request.key: [] for request in requests}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        for output in engine.step():
            assert output.error is None
            if output.ids:
                found[output.key].append((output.ids, output.logprobs))
    return found


def test_bits_do_not_depend_on_what_is_beside(tmp_path: Path) -> None:
    """Invariant mode: scaled and mixed answers, alone, among others, taken over, in few slots."""
    path = make_tiny_model(tmp_path, num_hidden_layers=1)
    shapes = load_backbone(path, "cpu", torch.float32).linear_shapes
    a, b, c = (
        random_adapter(shapes, name, rank=rank) for name, rank in zip("abc", (8, 3, 5), strict=True)
    )

    def engine(**changes: Any) -> Engine:
        config = EngineConfig(
            max_rows=12, max_step_tokens=96, slots=3, max_rank=8, kv_tokens=960, invariant=True
        )
        return Engine(load_backbone(path, "cpu", torch.float32), replace(config, **changes))

    wanted = [
        request_of(0, a, 0.3),
        request_of(1, mix((a, b), (0.5, -1.0))),
        request_of(2, mix((c, b, a), (0.25, 1.0, 0.5)), 1.5),
        request_of(3, a),
    ]
    others = [request_of(4, b, 2.0), request_of(5, mix((b, a), (1.0, 1.0))), request_of(6, None)]
    alone = engine()
    whole = {each.key: answers(alone, each)[each.key] for each in wanted}
    for changes in ({}, {"max_step_tokens": 13}, {"max_rows": 3}):
        mixed = answers(engine(**changes), *others, *wanted)
        assert {key: mixed[key] for key in whole} == whole
    ids = [ids[0] for ids, _ in whole[2]]
    resumed = replace(wanted[2], resume_ids=tuple(ids[:3]))
    assert answers(alone, resumed, *others)[2] == whole[2][3:]


@pytest.mark.parametrize("adapters", [1, 2])
def test_dora_has_one_strength(adapters: int, tmp_path: Path) -> None:
    """Its lengths are of its own weights: a caller that asks for more has made a mistake."""
    backbone = load_backbone(make_tiny_model(tmp_path, num_hidden_layers=1), "cpu", torch.float32)
    dora = random_adapter(backbone.linear_shapes, "d", dora=True)
    engine = Engine(
        backbone, EngineConfig(max_rows=2, max_step_tokens=16, slots=2, max_rank=8, kv_tokens=64)
    )
    asked = request_of(1, dora, 0.5)
    if adapters == 2:
        asked = request_of(1, Mixture((dora, dora), (1.0, 1.0)))
    with pytest.raises(ValueError, match="DoRA"):
        engine.submit(asked)
    assert not engine.has_work
    engine.submit(request_of(1, dora))


def test_more_adapters_than_slots_are_refused(tmp_path: Path) -> None:
    """They could never run, and would stop all behind them."""
    backbone = load_backbone(make_tiny_model(tmp_path, num_hidden_layers=1), "cpu", torch.float32)
    plain = random_adapter(backbone.linear_shapes, "a")
    engine = Engine(
        backbone, EngineConfig(max_rows=2, max_step_tokens=16, slots=1, max_rank=8, kv_tokens=64)
    )
    with pytest.raises(ValueError, match="2 adapters at once, there are 1"):
        engine.submit(request_of(1, Mixture((plain, plain), (1.0, 1.0))))
