"""A model's norms, gates and rotations led to kernels of ours, where those compute the same.

They are small beside a layer's products, but each is several operators of torch, and a step has
hundreds: a third of its time on a CPU, a launch each on a GPU. What a module computes is not told
from its name, which only says where to look: both are run on random rows, and the kernel takes over
where nothing but rounding differs. A model's own forward stays transformers': the kernels work in
packed rows only.
"""

from __future__ import annotations

import inspect
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import nn

from aril.kernels.fused import fused_kernels
from aril.worker.engine.forward_pass import under_way

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from aril.kernels.fused import FusedKernels

# Largest difference as a share of the largest number: kernels round once where torch rounds after
# each operator. Another formula differs by a hundred times as much.
_ROUNDING: Final = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}

_ROWS: Final = 3
_OFFSETS: Final = (0.0, 1.0)  # some norms multiply by 1 + weight
_LARGE_GATE: Final = 30.0  # models that clamp gates do so at 7 or 10

GATES: Final[dict[str, bool]] = {  # classes of transformers.activations and torch: by tanh, or not
    "SiLU": False,
    "SiLUActivation": False,
    "GELUTanh": True,
    "PytorchGELUTanh": True,
}


def lead_rows(model: Any) -> None:
    """Lead what can be led, in a model whose weights are read, where it lies."""
    kernels = fused_kernels("auto", model.device, model.dtype)
    if kernels is None:
        return
    proved: dict[object, Any] = {}  # modules of one class that are alike are run once
    rotations: set[int] = set()
    with torch.inference_mode():
        for module in model.modules():
            names = type(module).__name__
            if names.endswith("RMSNorm"):
                _lead_norm(module, kernels, proved)
            elif {"gate_proj", "up_proj", "down_proj", "act_fn"} <= {
                name for name, _ in module.named_children()
            }:
                _lead_gate(module, kernels, proved)
            elif names.endswith("Attention"):
                scope = inspect.unwrap(type(module).forward).__globals__
                if id(scope) not in rotations:
                    rotations.add(id(scope))
                    _lead_rotation(scope, kernels, model)


def _kernels() -> FusedKernels | None:
    """Return those of the step under way, if it has any."""
    step = under_way()
    return None if step is None else step.context.kernels


def result(call: Callable[..., Any], *operands: Tensor) -> Any:
    """Return what a module makes of rows; None where it takes something else."""
    try:
        return call(*operands)
    except Exception:  # noqa: BLE001 - anything: it is transformers' code, on operands of our own
        return None


def alike(one: Any, other: Any, rounding: Mapping[torch.dtype, float] = _ROUNDING) -> bool:
    """Whether only rounding, up to such a share of the largest number, tells results apart."""
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bound = rounding[one.dtype] * float(one.float().abs().max())
    return float((one.float() - other.float()).abs().max()) <= bound


def drawn(*shape: int, like: Tensor) -> Tensor:
    """Draw what both are run on: normal numbers, the same each time, of this type and there."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(like)


class _Norm(NamedTuple):
    eps: float
    offset: float


def _lead_norm(module: Any, kernels: FusedKernels, proved: dict[object, Any]) -> None:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, nn.Parameter) or weight.ndim != 1 or not isinstance(eps, float):
        return
    key = (type(module), eps, weight.dtype)
    if key not in proved:
        proved[key] = _offset_of(module, kernels, eps)
    if proved[key] is not None:
        _lead(module, _norm, _Norm(eps, proved[key]))


def _offset_of(module: Any, kernels: FusedKernels, eps: float) -> float | None:
    """Return what this norm adds to its weight; None where it is another norm."""
    # Weights may all be 0 or 1, which tells no formula from another.
    kept, weight = module.weight.data, drawn(*module.weight.shape, like=module.weight)
    x = 3 * drawn(_ROWS, len(weight), like=weight)
    module.weight.data = weight
    expected = result(module.forward, x)
    module.weight.data = kept
    for offset in _OFFSETS:
        if alike(expected, kernels.rms_norm(x, weight, eps, offset=offset)):
            return offset
    return None


def _norm(self: Any, x: Tensor) -> Tensor:
    kernels = _kernels()
    if kernels is None or x.dtype is not self.weight.dtype:
        return type(self).forward(self, x)
    return kernels.rms_norm(x.contiguous(), self.weight, self.aril.eps, offset=self.aril.offset)


def _lead_gate(module: Any, kernels: FusedKernels, proved: dict[object, Any]) -> None:
    tanh = GATES.get(type(module.act_fn).__name__)
    if tanh is None:
        return
    key = (type(module), type(module.act_fn), _settings(module))
    if key not in proved:
        proved[key] = _is_gate(module, kernels, tanh=tanh)
    if proved[key]:
        _lead(module, _gate, tanh)


def _settings(module: Any) -> frozenset[tuple[str, object]]:
    """Return a module's own numbers and words: layers of one class may differ by them."""
    plain = (int, float, str)
    return frozenset(each for each in vars(module).items() if isinstance(each[1], plain))


def _is_gate(module: Any, kernels: FusedKernels, *, tanh: bool) -> bool:
    """Whether a module computes what the kernel does, also of gates that some models clamp."""
    x = drawn(1, _ROWS, module.gate_proj.in_features, like=module.gate_proj.weight)
    gates = result(module.gate_proj, x)
    if gates is None:
        return False
    larger = x * (_LARGE_GATE / gates.abs().max())
    ours = partial(_gated, module, kernels, tanh=tanh)
    return all(alike(result(module.forward, rows), result(ours, rows)) for rows in (x, larger))


def _gate(self: Any, x: Tensor) -> Tensor:
    kernels = _kernels()
    if kernels is None:
        return type(self).forward(self, x)
    return _gated(self, kernels, x, tanh=self.aril)


def _gated(module: Any, kernels: FusedKernels, x: Tensor, *, tanh: bool) -> Tensor:
    gates, up = module.gate_proj(x), module.up_proj(x)
    rows = kernels.gate(gates.view(-1, gates.shape[-1]), up.view(-1, up.shape[-1]), tanh=tanh)
    return module.down_proj(rows.view(*x.shape[:-1], -1))


def _lead(module: Any, ours: Callable[..., Any], found: object) -> None:
    """Have a module run `ours`, with what was found of it; a copy of the module runs it too."""
    if "forward" not in vars(module):
        module.aril = found
        module.forward = MethodType(ours, module)


def _lead_rotation(scope: dict[str, Any], kernels: FusedKernels, model: Any) -> None:
    """Put ours beside the function that a modelling file rotates queries and keys by."""
    own = scope.get("apply_rotary_pos_emb")
    if own is None or hasattr(own, "own"):
        return
    like = torch.empty(0, dtype=model.dtype, device=model.device)
    q, k = drawn(1, 4, _ROWS, 8, like=like), drawn(1, 2, _ROWS, 8, like=like)
    cos, sin = drawn(2, 1, _ROWS, 8, like=like)
    rotated = result(own, q, k, cos, sin)
    if isinstance(rotated, tuple) and all(map(alike, rotated, _rotate(kernels, q, k, cos, sin))):
        scope["apply_rotary_pos_emb"] = _rotation(own)


def _rotation(own: Callable[..., Any]) -> Callable[..., Any]:
    def apply_rotary_pos_emb(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *more: Any, **named: Any
    ) -> Any:
        kernels = _kernels()
        if more or named or kernels is None or not _fits(q, k, cos, sin):
            return own(q, k, cos, sin, *more, **named)
        return _rotate(kernels, q, k, cos, sin)

    apply_rotary_pos_emb.own = own  # type: ignore[attr-defined]
    return apply_rotary_pos_emb


def _fits(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Whether these are one row of heads [1, heads, T, d] and angles [1, T, d]."""
    return (
        len(q) == len(k) == 1
        and q.shape[2:] == k.shape[2:]
        and cos.shape == sin.shape == (1, q.shape[2], q.shape[3])
        and q.dtype is k.dtype is cos.dtype is sin.dtype
        and q.stride(3) == k.stride(3) == 1
    )


def _rotate(
    kernels: FusedKernels, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor]:
    q, k = kernels.rotate(
        q[0].transpose(0, 1), k[0].transpose(0, 1), cos[0].contiguous(), sin[0].contiguous()
    )
    return q.transpose(0, 1)[None], k.transpose(0, 1)[None]
