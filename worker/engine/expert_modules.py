"""Where a model keeps its experts and its routers, found by what they are and not by name.

transformers marks a module that holds all experts of a layer: a decorator gives it `is_transposed`,
`has_gate` and what else its several implementations go by. A router is a module beside it that
multiplies by a plain `weight` with a row for each expert.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from aril.worker.adapters.target_parameters import ExpertShape, ParameterShapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UP = ("gate_up_proj", "up_proj")
"""What experts multiply by first, with a gate and without."""
DOWN = "down_proj"

_MATRICES = 3  # dimensions of a stack of matrices
_PROBE_ROWS = 3


def parameter_shapes(model: Any) -> ParameterShapes:
    """Return what `target_parameters` can name in a model beside its linears.

    On the device "meta" as on any other.
    """
    experts: dict[str, ExpertShape] = {}
    routers: dict[str, tuple[int, int]] = {}
    for path, module in _experts(model):
        for name, parameter in module.named_parameters(recurse=False):
            if name in {*UP, DOWN}:
                count, rows, columns = parameter.shape
                if module.is_transposed:
                    rows, columns = columns, rows
                shape = ExpertShape(count, rows, columns, transposed=module.is_transposed)
                experts[f"{path}.{name}"] = shape
        above = path.rpartition(".")[0]
        for name, beside in model.get_submodule(above).named_children():
            if _is_router(beside, module.num_experts):
                routers[f"{above}.{name}"] = tuple(beside.weight.shape)
    return ParameterShapes(experts=experts, routers=routers)


def up_name(module: Any) -> str:
    """Return which of `UP` a module of experts has."""
    return UP[0] if module.has_gate else UP[1]


class CaughtWeight(Tensor):
    """A weight that hands `linear` by it to `catch`, and is a plain tensor to all else."""

    catch: Callable[[Tensor, Tensor | None], Tensor]

    @classmethod
    def of(cls, weight: Tensor, catch: Callable[[Tensor, Tensor | None], Tensor]) -> CaughtWeight:
        """Wrap `weight`; `catch` is given what is multiplied by it, and the bias."""
        made = weight.detach().as_subclass(cls)
        made.catch = catch
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See torch: called for every function that is given such a weight."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001  # what torch's own guide uses
            caught = args[1] if func is linear and len(args) > 1 else None
            if isinstance(caught, cls) and not kwargs.keys() - {"bias"}:
                bias = args[2] if len(args) > 2 else kwargs.get("bias")  # noqa: PLR2004
                return caught.catch(args[0], bias)
            return func(*args, **kwargs)


def _experts(model: Any) -> Iterator[tuple[str, Any]]:
    for path, module in model.named_modules():
        if not all(hasattr(module, name) for name in ("is_transposed", "has_gate", "num_experts")):
            continue
        weights = [getattr(module, name, None) for name in (up_name(module), DOWN)]
        if all(isinstance(each, Tensor) and each.ndim == _MATRICES for each in weights):
            yield path, module


def _is_router(module: nn.Module, experts: int) -> bool:
    """Whether a module's answer depends on its weight by one product with what it is given.

    Seen in bfloat16 for any type: some multiply by a copy in float32, which in float32 is no copy.
    """
    weight = module._parameters.get("weight")  # noqa: SLF001  # a property would be another thing
    if type(module) is nn.Linear or weight is None or weight.ndim != 2:  # noqa: PLR2004
        return False
    if len(weight) != experts:
        return False
    calls = []

    def note(x: Tensor, _bias: Tensor | None) -> Tensor:
        calls.append(x.shape)
        return x.new_zeros(*x.shape[:-1], experts)

    x = torch.zeros(_PROBE_ROWS, weight.shape[1], dtype=torch.bfloat16, device=weight.device)
    del module.weight
    try:
        module.weight = CaughtWeight.of(weight.to(torch.bfloat16), note)
        with torch.inference_mode():
            module(x)
    except (TypeError, RuntimeError, ValueError):  # it wants something else
        return False
    finally:
        del module.weight
        module.weight = weight
    return calls == [x.shape]
