"""`adapter_model.safetensors` of a PEFT folder: checked against the backbone, tensor by tensor."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from worker.adapters.config import LoraConfig
from worker.adapters.faults import AdapterFault, quoted

MAX_HEADER_BYTES: Final = 8 << 20
"""A header entry is about 150 bytes: room for fifty thousand tensors."""
_LENGTH_BYTES: Final = 8  # a safetensors file begins with the header's length, little-endian

_DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16)
_KEY: Final = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")


@dataclass(frozen=True, slots=True, eq=False)
class LoraModule:
    """The adapter of one linear layer: y += scaling · (x Aᵀ) Bᵀ (LoRA, arXiv 2106.09685)."""

    rank: int
    scaling: float
    a: Tensor
    """[rank, in features], in the dtype of the file."""
    b: Tensor
    """[out features, rank]."""

    @property
    def nbytes(self) -> int:
        """Bytes of both tensors."""
        return self.a.nbytes + self.b.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class AdapterWeights:
    """An adapter on the host, ready for any device slot."""

    name: str
    digest: str
    """SHA-256 of configuration and tensors, hexadecimal."""
    rank: int
    """The largest rank of any module."""
    modules: Mapping[str, LoraModule]
    """By the module's path in the backbone, e.g. `model.layers.0.self_attn.q_proj`."""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(module.nbytes for module in self.modules.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneShapes:
    """What an adapter has to fit."""

    linears: Mapping[str, tuple[int, int]]
    """(out features, in features) of each linear layer that can carry an adapter, by path."""
    max_rank: int

    def max_file_bytes(self) -> int:
        """Return the size that no adapter of this backbone can exceed: all linears, in fp32."""
        features = sum(rows + columns for rows, columns in self.linears.values())
        return _LENGTH_BYTES + MAX_HEADER_BYTES + 4 * self.max_rank * features


def read_modules(
    data: bytes, config: LoraConfig, backbone: BackboneShapes
) -> dict[str, LoraModule]:
    """Return the adapter of each module; AdapterFault names the first tensor that does not fit."""
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in _read_tensors(data).items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise AdapterFault(f"tensor {quoted(key)} is not part of a LoRA adapter")
        module = match["module"]
        if module not in backbone.linears:
            raise AdapterFault(f"tensor {quoted(key)}: the backbone has no such linear layer")
        if config.is_target(module) is False:
            raise AdapterFault(f"tensor {quoted(key)}: target_modules does not name its module")
        _check_values(key, tensor)
        halves.setdefault(module, {})[match["half"]] = tensor
    if not halves:
        raise AdapterFault("adapter_model.safetensors has no tensors")
    for module in backbone.linears:
        if module not in halves and config.is_target(module):
            raise AdapterFault(f"module {module} is in target_modules but has no tensors")
    return {module: _pair(module, pair, config, backbone) for module, pair in halves.items()}


def _read_tensors(data: bytes) -> dict[str, Tensor]:
    room = len(data) - _LENGTH_BYTES
    header = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if header > min(room, MAX_HEADER_BYTES):
        raise AdapterFault(
            "adapter_model.safetensors is cut short, or its header too long",
            limit=max(0, min(room, MAX_HEADER_BYTES)),
            given=header,
        )
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise AdapterFault(f"adapter_model.safetensors is corrupt: {quoted(str(error))}") from None
    except KeyError as error:
        raise AdapterFault(
            f"adapter_model.safetensors has tensors of dtype {error}, which PyTorch lacks"
        ) from None
    return tensors


def _check_values(key: str, tensor: Tensor) -> None:
    if tensor.dtype not in _DTYPES:
        raise AdapterFault(
            f"tensor {quoted(key)} is {str(tensor.dtype).removeprefix('torch.')},"
            " not float32, float16 or bfloat16"
        )
    if not torch.isfinite(tensor).all():
        raise AdapterFault(f"tensor {quoted(key)} has NaN or infinite values")


def _pair(
    module: str, pair: Mapping[str, Tensor], config: LoraConfig, backbone: BackboneShapes
) -> LoraModule:
    for half in "AB":
        if half not in pair:
            raise AdapterFault(f"module {module} has no lora_{half}")
    rank = config.rank_of(module)
    if rank > backbone.max_rank:
        raise AdapterFault(
            f"module {module} has rank {rank}, this worker serves up to {backbone.max_rank}",
            limit=backbone.max_rank,
            given=rank,
        )
    rows, columns = backbone.linears[module]
    for half, shape in (("A", (rank, columns)), ("B", (rows, rank))):
        if tuple(pair[half].shape) != shape:
            raise AdapterFault(
                f"lora_{half} of module {module} is {list(pair[half].shape)},"
                f" not {list(shape)} as rank and backbone want it"
            )
    return LoraModule(rank, config.scaling_of(module), pair["A"], pair["B"])
