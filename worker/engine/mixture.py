"""Several adapters at work on one answer: what each adds to a linear is added up, by weights.

The reference is PEFT's `add_weighted_adapter(combination_type="cat")`: the sum of weight · scaling
· B A over the adapters, each at its own rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aril.schemas import ErrorCode, JobError

if TYPE_CHECKING:
    from aril.worker.adapters import AdapterWeights


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Adapters and their weights, in the order in which a job names them."""

    members: tuple[AdapterWeights, ...]
    weights: tuple[float, ...]


def members_of(adapter: AdapterWeights | Mixture | None) -> tuple[AdapterWeights, ...]:
    """Return the adapters that take part, none for the backbone."""
    if adapter is None:
        return ()
    return adapter.members if isinstance(adapter, Mixture) else (adapter,)


def mix(members: tuple[AdapterWeights, ...], weights: tuple[float, ...]) -> Mixture:
    """Put adapters together; JobError `invalid_job` names the one that no sum can hold."""
    for member in members:
        if reason := _why_apart(member):
            raise JobError(ErrorCode.INVALID_JOB, f"adapters: {member.name} {reason}")
    return Mixture(members, weights)


def check_scale(adapter: AdapterWeights, scale: float) -> None:
    """Raise JobError `invalid_job` for an adapter whose strength cannot be other than 1."""
    if scale != 1 and adapter.dora:
        raise JobError(
            ErrorCode.INVALID_JOB,
            f"adapter_scale: {adapter.name} is DoRA (use_dora): the lengths that it has learnt are"
            " those at its own strength, 1",
        )


def _why_apart(member: AdapterWeights) -> str | None:
    """Say why an adapter cannot be one of several; PEFT takes all but the last without a word."""
    if member.dora:
        return "is DoRA (use_dora): its lengths are of its own weights, not of a sum"
    if member.invocation:
        return "has an invocation (alora_invocation_tokens): it works from there on, others do not"
    if member.experts:
        return "changes experts (target_parameters), whose A and B PEFT's sum does not put together"
    if any(module.bias is not None for module in member.modules.values()):
        return "has biases (lora_bias or bias), which a mixture of A and B leaves out"
    if member.tokens is not None:
        return "has trained tokens or a saved embedding or head, of which there can be one only"
    return None
