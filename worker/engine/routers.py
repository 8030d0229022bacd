"""A router with adapters: what it multiplies by its weight goes through a group of one linear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from aril.worker.engine.expert_modules import CaughtWeight
from aril.worker.engine.groups import LinearGroup

if TYPE_CHECKING:
    from aril.worker.engine.groups import StepState


def install_router(path: str, module: Any, state: StepState) -> LinearGroup:
    """Let a module that multiplies by its `weight` do so through a group, which is returned.

    The module stays, and with it all that it does with the product. A bias is added by itself.
    """
    weight = module.weight.as_subclass(Tensor).detach()
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)
    group = LinearGroup((path,), (plain,), state)

    def multiply(x: Tensor, bias: Tensor | None) -> Tensor:
        product = group.first(x)
        return product if bias is None else product + bias

    module._parameters.pop("weight", None)  # noqa: SLF001  # it is a plain attribute from now on
    module.weight = CaughtWeight.of(weight, multiply)
    return group
