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
# PEFT writes the magnitude without `.weight`, and reads it both ways.
_KEY: Final = re.compile(
    r"base_model\.model\.(?P<module>.+)\.lora_"
    r"(?:(?P<half>[AB])\.weight|(?P<magnitude>magnitude_vector)(?:\.weight)?)"
)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LoraModule:
    """The adapter of one linear layer: y += scaling · (x Aᵀ) Bᵀ (LoRA, arXiv 2106.09685).

    With a magnitude m, each row of the changed weight is scaled to that length (DoRA, arXiv
    2402.09353): the layer's weight is m ⊙ (W + scaling · B A) / ‖W + scaling · B A‖ row by row.
    """

    rank: int
    scaling: float
    a: Tensor
    """[rank, in features], in the dtype of the file."""
    b: Tensor
    """[out features, rank]."""
    magnitude: Tensor | None = None
    """[out features]; None for plain LoRA."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, and with a magnitude of the fp32 gains that are kept beside it."""
        size = self.a.nbytes + self.b.nbytes
        if self.magnitude is None:
            return size
        return size + self.magnitude.nbytes + 4 * self.magnitude.numel()


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
    warning: str | None = None
    """Why it may not be meant for this backbone, though it fits."""

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
        values = sum(
            self.max_rank * (rows + columns) + rows for rows, columns in self.linears.values()
        )
        return _LENGTH_BYTES + MAX_HEADER_BYTES + 4 * values


def read_modules(
    data: bytes, config: LoraConfig, backbone: BackboneShapes
) -> dict[str, LoraModule]:
    """Return the adapter of each module; AdapterFault names the first tensor that does not fit."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in _read_tensors(data).items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise AdapterFault(f"tensor {quoted(key)} is not part of a LoRA adapter")
        module = match["module"]
        if module not in backbone.linears:
            raise AdapterFault(f"tensor {quoted(key)}: the backbone has no such linear layer")
        if config.is_target(module) is False:
            raise AdapterFault(f"tensor {quoted(key)}: target_modules does not name its module")
        if match["magnitude"] and not config.dora:
            raise AdapterFault(f"tensor {quoted(key)}: use_dora is not set")
        _check_values(key, tensor)
        own, part = parts.setdefault(module, {}), match["half"] or match["magnitude"]
        if part in own:
            raise AdapterFault(f"tensor {quoted(key)}: its module has another lora_{part}")
        own[part] = tensor
    if not parts:
        raise AdapterFault("adapter_model.safetensors has no tensors")
    for module in backbone.linears:
        if module not in parts and config.is_target(module):
            raise AdapterFault(f"module {module} is in target_modules but has no tensors")
    return {module: _module(module, own, config, backbone) for module, own in parts.items()}


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


def _module(
    module: str, parts: Mapping[str, Tensor], config: LoraConfig, backbone: BackboneShapes
) -> LoraModule:
    wanted = ("A", "B", "magnitude_vector") if config.dora else ("A", "B")
    for part in wanted:
        if part not in parts:
            raise AdapterFault(f"module {module} has no lora_{part}")
    rank = config.rank_of(module)
    if rank > backbone.max_rank:
        raise AdapterFault(
            f"module {module} has rank {rank}, this worker serves up to {backbone.max_rank}",
            limit=backbone.max_rank,
            given=rank,
        )
    rows, columns = backbone.linears[module]
    shapes = {"A": (rank, columns), "B": (rows, rank), "magnitude_vector": (rows,)}
    for part in wanted:
        if tuple(parts[part].shape) != shapes[part]:
            raise AdapterFault(
                f"lora_{part} of module {module} is {list(parts[part].shape)},"
                f" not {list(shapes[part])} as rank and backbone want it"
            )
    return LoraModule(
        rank, config.scaling_of(module), parts["A"], parts["B"], parts.get("magnitude_vector")
    )
