"""The tensors of a mixture's experts: held against ranks, shapes and the room of a slot."""

from collections.abc import Mapping

from torch import Tensor

from aril.worker.adapters.config import LoraConfig
from aril.worker.adapters.faults import AdapterFault
from aril.worker.adapters.target_parameters import ExpertShape, split_experts
from aril.worker.adapters.weights import ExpertsModule


def read_experts(
    parts: Mapping[str, Mapping[str, Tensor]],
    config: LoraConfig,
    shapes: Mapping[str, ExpertShape],
    max_rank: int,
) -> dict[str, ExpertsModule]:
    """Return the adapter of each parameter, of its tensors by kind; AdapterFault names a misfit."""
    return {path: _read(path, own, config, shapes[path], max_rank) for path, own in parts.items()}


def check_experts_size(experts: Mapping[str, ExpertsModule], limit: int) -> None:
    """Raise AdapterFault for more numbers than a slot has room for."""
    values = sum(module.a.numel() + module.b.numel() for module in experts.values())
    if values > limit:
        raise AdapterFault(
            "its LoRA on experts has more numbers than a slot has room for (ARIL_EXPERT_BYTES)",
            limit=limit,
            given=values,
        )


def served_rank(path: str, config: LoraConfig, limit: int) -> int:
    """Return the rank of a module, or of each expert; AdapterFault where it is too large."""
    rank = config.rank_of(path)
    if rank > limit:
        raise AdapterFault(
            f"module {path} has rank {rank}, this worker serves up to {limit}",
            limit=limit,
            given=rank,
        )
    return rank


def _read(
    path: str,
    parts: Mapping[str, Tensor],
    config: LoraConfig,
    shape: ExpertShape,
    max_rank: int,
) -> ExpertsModule:
    for part in ("A", "B"):
        if part not in parts:
            raise AdapterFault(f"{path} is in target_parameters but has no lora_{part}")
    if other := parts.keys() - {"A", "B"}:
        raise AdapterFault(f"{path} has a lora_{min(other)}, which experts cannot have")
    rank = served_rank(path, config, max_rank)
    a, b = split_experts(path, parts["A"], parts["B"], rank, shape, config.version)
    return ExpertsModule(rank, config.scaling_of(path), a, b)
