"""Tensors beside A and B: copies of the backbone's weights, and biases that were trained."""

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from worker.adapters.faults import AdapterFault, quoted
from worker.adapters.own_weights import OwnWeights

_DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16)
_COPY: Final = re.compile(
    r"base_model\.model\.(?P<module>.+?)(?:\.base_layer)?\.(?P<kind>weight|bias)"
)
_EMBEDDING: Final = re.compile(r".+\.lora_embedding_[AB](?:\.default)?")


def compare_copy(
    key: str, tensor: Tensor, linears: Mapping[str, tuple[int, int]], own: OwnWeights | None
) -> tuple[str, Tensor | None]:
    """Return whose weight or bias this copies, and what a trained bias adds to the backbone's.

    AdapterFault for all else: a weight that was trained whole, and what is of no module.
    """
    if _EMBEDDING.fullmatch(key):
        raise AdapterFault(f"tensor {quoted(key)}: LoRA of embeddings is not supported")
    match = _COPY.fullmatch(key)
    if match is None:
        raise AdapterFault(f"tensor {quoted(key)} is not part of a LoRA adapter")
    check_values(key, tensor)
    module = match["module"]
    name = f"{module}.{match['kind']}"
    same = None if own is None else own.equals(name, tensor)
    if own is None or same is None:
        raise AdapterFault(f"tensor {quoted(key)}: the backbone has no such weight")
    outputs = linears.get(module, ())[:1]
    if not same and match["kind"] == "bias" and tensor.shape == outputs:
        bias = own.read(name)
        return module, None if bias is None else tensor.float() - bias.float()
    if not same:
        raise AdapterFault(
            f"tensor {quoted(key)} is not the backbone's own: a weight that was trained whole,"
            " or is of another backbone, is not supported",
            given=tensor.nbytes,
        )
    return module, None


def check_values(key: str, tensor: Tensor) -> None:
    """Raise AdapterFault for a tensor of a type that is not served, or with values not finite."""
    if tensor.dtype not in _DTYPES:
        raise AdapterFault(
            f"tensor {quoted(key)} is {str(tensor.dtype).removeprefix('torch.')},"
            " not float32, float16 or bfloat16"
        )
    if not torch.isfinite(tensor).all():
        raise AdapterFault(f"tensor {quoted(key)} has NaN or infinite values")
