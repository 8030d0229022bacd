"""Tensors beside A and B: copies of the backbone's weights, and biases that were trained."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor

from aril.worker.adapters.faults import AdapterFault, quoted
from aril.worker.adapters.own_weights import OwnWeights
from aril.worker.adapters.targets import Targets
from aril.worker.adapters.trained_tokens import MAX_TOKENS, TokenRows

_DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16)
_COPY: Final = re.compile(
    r"base_model\.model\.(?P<module>.+?)(?:\.base_layer)?\.(?P<kind>weight|bias)"
)
_EMBEDDING: Final = re.compile(r".+\.lora_embedding_[AB](?:\.default)?")


class Copy(NamedTuple):
    """What a tensor beside A and B is of, and what it changes there."""

    module: str
    bias: Tensor | None = None
    """What a trained bias adds to the backbone's, float32 [out features]."""
    rows: TokenRows | None = None
    """The vectors that were trained, of a table of tokens that was saved whole."""


def compare_copy(
    key: str,
    tensor: Tensor,
    linears: Mapping[str, tuple[int, int]],
    own: OwnWeights | None,
    targets: Targets,
) -> Copy:
    """Compare a tensor with the backbone's own weight or bias of its name.

    AdapterFault for what is of no module, and for a weight that was trained otherwise than `Copy`
    can tell.
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
        return Copy(module, bias=None if bias is None else tensor.float() - bias.float())
    if not same and own.is_table(module, tensor) and _is_saved_whole(key, module, targets):
        return Copy(module, rows=_trained_rows(key, tensor, own.changed_rows(name, tensor)))
    if not same and own.is_longer_table(module, tensor):
        raise AdapterFault(
            f"tensor {quoted(key)} has vectors of more tokens than the backbone has rows for",
            limit=0 if own.tables is None else own.tables.tokens,
            given=len(tensor),
        )
    if not same:
        raise AdapterFault(
            f"tensor {quoted(key)} is not the backbone's own: a weight that was trained whole,"
            " or is of another backbone, is not supported",
            given=tensor.nbytes,
        )
    return Copy(module)


def _is_saved_whole(key: str, module: str, targets: Targets) -> bool:
    """Whether PEFT reads this into a table of the adapter's own, and not into the backbone's."""
    return key == f"base_model.model.{module}.weight" and targets.saves(module)


def _trained_rows(key: str, tensor: Tensor, ids: tuple[int, ...]) -> TokenRows:
    if len(ids) > MAX_TOKENS:
        raise AdapterFault(
            f"tensor {quoted(key)} ({tensor.nbytes:,} bytes) was trained whole: so many of its"
            " tokens are not the backbone's own",
            limit=MAX_TOKENS,
            given=len(ids),
        )
    return TokenRows(ids, tensor[list(ids)].clone())


def check_values(key: str, tensor: Tensor) -> None:
    """Raise AdapterFault for a tensor of a type that is not served, or with values not finite."""
    if tensor.dtype not in _DTYPES:
        raise AdapterFault(
            f"tensor {quoted(key)} is {str(tensor.dtype).removeprefix('torch.')},"
            " not float32, float16 or bfloat16"
        )
    if not torch.isfinite(tensor).all():
        raise AdapterFault(f"tensor {quoted(key)} has NaN or infinite values")
