"""`target_parameters`: whose tensors are whose, how PEFT lays experts out, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aril.schemas import ErrorCode, JobError
from aril.worker.adapters import AdapterStore, AdapterWeights
from aril.worker.adapters.faults import AdapterFault
from aril.worker.adapters.target_parameters import (
    MAX_NAMES,
    ExpertShape,
    ParameterShapes,
    match_names,
    split_experts,
)
from tests.support.adapter_folders import (
    EXPERTS,
    RANK,
    SHAPES,
    expert_tensors,
    key,
    tensors,
    write_adapter,
)

MODULE = "model.layers.0.mlp.experts"
UP, DOWN = f"{MODULE}.up_proj", f"{MODULE}.down_proj"
ROUTER = "model.layers.0.mlp.gate"
SHAPES_OF_ALL = ParameterShapes(experts=EXPERTS, routers={ROUTER: (2, 4)})
BOTH: dict[str, Any] = {"target_parameters": ["experts.up_proj", "experts.down_proj"]}
VALUES = 2 * RANK * ((6 + 4) + (4 + 4))


def load(
    tmp_path: Path, weights: dict[str, Tensor], *, values: int = VALUES, **fields: Any
) -> AdapterWeights:
    """Write an adapter, and read it for a backbone with a layer of two experts."""
    store = AdapterStore(
        tmp_path,
        base_model=None,
        linear_shapes=SHAPES,
        max_rank=8,
        parameters=SHAPES_OF_ALL,
        max_expert_values=values,
    )
    fields = {"peft_version": "0.21.2"} | fields
    write_adapter(tmp_path / "acme/pirate", weights, **fields)
    return store.load(store.find("acme", "pirate"))


def halves(nesting: str, columns: int = 4) -> dict[str, Tensor]:
    """Return an A whose wrapper lies that deep."""
    return {key(f"{MODULE}{nesting}", "A"): torch.rand(2 * RANK, columns)}


def refusal(tmp_path: Path, weights: dict[str, Tensor], **given: Any) -> JobError:
    """Return what its tenant is told."""
    with pytest.raises(JobError) as caught:
        load(tmp_path, weights, **given)
    assert caught.value.code is ErrorCode.ADAPTER_INVALID
    return caught.value


def test_each_wrapper_gives_its_own_parameter(tmp_path: Path) -> None:
    """The parameter that the module has first lies innermost; ranks and scalings are its own."""
    weights = expert_tensors()
    found = load(tmp_path, tensors() | weights, alpha_pattern={"experts.up_proj": 3}, **BOTH)
    assert found.experts.keys() == {UP, DOWN}
    assert (found.experts[UP].scaling, found.experts[DOWN].scaling) == (1.0, 2.0)
    for path, nesting in ((UP, ".base_layer"), (DOWN, "")):
        a = weights[key(f"{MODULE}{nesting}", "A")]
        b = weights[key(f"{MODULE}{nesting}", "B")]
        for expert in range(2):
            assert torch.equal(found.experts[path].a[expert], a[expert * RANK :][:RANK])
            assert torch.equal(found.experts[path].b[expert], b[:, expert::2])
    assert found.nbytes == sum(each.nbytes for each in (tensors() | weights).values())


def test_one_parameter_has_no_wrapper_in_another(tmp_path: Path) -> None:
    """Named alone, the inner one's keys have no `base_layer`."""
    weights = {
        name.replace(".base_layer", ""): each
        for name, each in expert_tensors().items()
        if "base_layer" in name
    }
    found = load(tmp_path, weights, target_modules=[], target_parameters=["up_proj"])
    assert found.experts.keys() == {UP}
    assert not found.modules


@pytest.mark.parametrize("version", ["0.18.1", "0.17.0", None])
def test_folders_of_an_older_peft_mean_the_same(tmp_path: Path, version: str | None) -> None:
    """Up to 0.18 A and B of [experts, out, in] had changed places; the change of W tells."""
    shape = EXPERTS[DOWN]  # square, so that shapes do not tell
    a, b = torch.rand(2 * RANK, 4), torch.rand(4, 2 * RANK)
    delta = torch.einsum(  # as PEFT 0.18 has it: e i o are the parameter's dimensions
        "o r e, e r i -> e i o", b.reshape(4, -1, 2), a.reshape(2, -1, 4)
    )
    first, second = split_experts(DOWN, a, b, RANK, shape, version)
    assert torch.allclose(second @ first, delta)
    today = split_experts(DOWN, a, b, RANK, shape, "0.21.2")
    assert not torch.allclose(today[1] @ today[0], delta)
    older = load(
        tmp_path, expert_tensors(before=True), target_modules=[], peft_version=version, **BOTH
    )
    assert older.experts[UP].a.shape == (2, RANK, 4)  # where they are not square shapes tell


@pytest.mark.parametrize("version", ["0.19.0.dev0", "new", 7])
def test_a_version_that_tells_nothing_is_refused_where_it_decides(version: object) -> None:
    """A square weight of an unknown release could be either."""
    a, b = torch.rand(2 * RANK, 4), torch.rand(4, 2 * RANK)
    with pytest.raises(AdapterFault, match="peft_version"):
        split_experts(DOWN, a, b, RANK, EXPERTS[DOWN], version)
    kept_otherwise = EXPERTS[DOWN]._replace(transposed=True)  # both releases read it alike
    split_experts(DOWN, a, b, RANK, kept_otherwise, version)


def test_the_bound_counts_every_expert(tmp_path: Path) -> None:
    """One number too many is refused, with limit and given."""
    load(tmp_path, expert_tensors(), target_modules=[], **BOTH)
    error = refusal(tmp_path, expert_tensors(), values=VALUES - 1, target_modules=[], **BOTH)
    assert (error.limit, error.given) == (VALUES - 1, VALUES)
    assert "ARIL_EXPERT_BYTES" in error.message


def test_a_routers_or_a_linears_weight_is_a_module_like_any_other(tmp_path: Path) -> None:
    """Patterns go by the parameter's name, as PEFT has it."""
    linear = "model.layers.0.self_attn.q_proj"
    made = {key(ROUTER, "A"): torch.rand(1, 4), key(ROUTER, "B"): torch.rand(2, 1)}
    made |= {key(linear, "A"): torch.rand(RANK, 4), key(linear, "B"): torch.rand(6, RANK)}
    found = load(
        tmp_path,
        made,
        target_modules=[],
        target_parameters=["gate.weight", "layers.0.self_attn.q_proj.weight"],
        rank_pattern={"mlp.gate.weight": 1, "mlp.gate": 2},
    )
    assert {path: module.rank for path, module in found.modules.items()} == {ROUTER: 1, linear: 3}


@pytest.mark.parametrize(
    ("weights", "fields", "told"),
    [
        ({}, {"target_modules": []}, "up_proj is in target_parameters but has no lora_A"),
        ({}, {"target_modules": [], "target_parameters": []}, "no tensors of a LoRA adapter"),
        (tensors(), {"target_parameters": ["gate.weight"]}, "mlp.gate.weight is in target_par"),
        (tensors() | halves(".base_layer.base_layer"), {}, "does not name"),
        (tensors() | expert_tensors() | halves(".base_layer", 5), {}, r"\[6, 5\] and \[6, 6\]"),
        (tensors(), {"target_parameters": ["experts.gate_up_proj"]}, "'experts.gate_up_proj'"),
        (tensors(), {"target_parameters": "experts.up_proj"}, "not a list of names"),
        (tensors(), {"target_parameters": ["x"] * (MAX_NAMES + 1)}, "too many names"),
        (tensors(), {"use_dora": True}, "use_dora is set beside target_parameters"),
        (tensors(), {"lora_bias": True}, "lora_bias is set beside target_parameters"),
        (tensors(), {"fan_in_fan_out": True}, "fan_in_fan_out is set beside"),
        (tensors(), {"lora_dropout": 0.1}, "lora_dropout is set beside"),
        (tensors(), {"alora_invocation_tokens": [5]}, "alora_invocation_tokens is set beside"),
        (tensors() | expert_tensors(), {"rank_pattern": {"experts.down_proj": 9}}, "has rank 9"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    weights: dict[str, Tensor], fields: dict[str, Any], told: str, tmp_path: Path
) -> None:
    """Each in words that tell which field or tensor it is."""
    assert re.search(told, refusal(tmp_path, weights, **(BOTH | fields)).message)


def test_a_linear_cannot_be_named_twice(tmp_path: Path) -> None:
    """PEFT refuses a weight whose module has LoRA already."""
    names = ["q_proj.weight"]
    error = refusal(tmp_path, tensors(), target_parameters=names)
    assert "in target_modules and target_parameters" in error.message


def test_names_match_whole_parts() -> None:
    """`up_proj` is no ending of `gate_up_proj`, nor does a module's name name its weights."""
    shapes = ParameterShapes(experts={"a.experts.gate_up_proj": ExpertShape(2, 3, 4)})
    for name in ("up_proj", "experts", "gate_up_proj.weight"):
        with pytest.raises(AdapterFault, match=name):
            match_names([name], shapes, [])
    assert match_names(["gate_up_proj"], shapes, []).all_experts == ("a.experts.gate_up_proj",)
