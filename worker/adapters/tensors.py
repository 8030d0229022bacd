"""`adapter_model.safetensors` of a PEFT folder: checked against the backbone, tensor by tensor."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from aril.worker.adapters.config import LoraConfig
from aril.worker.adapters.copies import check_values, compare_copy
from aril.worker.adapters.expert_tensors import check_experts_size, read_experts, served_rank
from aril.worker.adapters.faults import AdapterFault, quoted
from aril.worker.adapters.own_weights import OwnWeights
from aril.worker.adapters.target_parameters import (
    ParameterShapes,
    ParameterTargets,
    match_names,
)
from aril.worker.adapters.trained_tokens import TokenRows, TrainedTokens, read_tokens
from aril.worker.adapters.weights import ExpertsModule, LoraModule

MAX_HEADER_BYTES: Final = 8 << 20
"""A header entry is about 150 bytes: room for fifty thousand tensors."""
_LENGTH_BYTES: Final = 8  # a safetensors file begins with the header's length, little-endian

# PEFT writes the magnitude without `.weight`, and reads it both ways. `.default` is the adapter's
# name in PEFT's memory, which stays where a state was saved past PEFT.
_KEY: Final = re.compile(
    r"base_model\.model\.(?P<module>.+)\.lora_"
    r"(?P<part>[AB](?=(?:\.default)?\.weight$)|B(?=(?:\.default)?\.bias$)|magnitude_vector)"
    r"(?:\.default)?(?P<kind>\.weight|\.bias)?"
)
_TOKENS: Final = re.compile(
    r"base_model\.model\.(?P<module>.+)\.token_adapter\.trainable_tokens_delta(?:\.default)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneShapes:
    """What an adapter has to fit."""

    linears: Mapping[str, tuple[int, int]]
    """(out features, in features) of each linear layer that can carry an adapter, by path."""
    max_rank: int
    parameters: ParameterShapes = field(default_factory=ParameterShapes)
    """What only `target_parameters` can name."""
    max_expert_values: int = 0
    """Most numbers in the A and B of an adapter's experts, all layers together."""
    own: OwnWeights | None = None
    """The weights that copies are compared with; None: there are no copies."""
    max_copy_bytes: int = 0
    """What such copies can take."""

    def max_file_bytes(self) -> int:
        """Return the size that no adapter of this backbone can exceed.

        That is all linears and the experts that fit a slot, in fp32.
        """
        values = sum(
            self.max_rank * (rows + columns) + 2 * rows for rows, columns in self.linears.values()
        )
        routers = self.parameters.routers.values()
        values += sum(self.max_rank * (rows + columns) for rows, columns in routers)
        if self.parameters.experts:
            values += self.max_expert_values
        return _LENGTH_BYTES + MAX_HEADER_BYTES + 4 * values + self.max_copy_bytes


class AdapterTensors(NamedTuple):
    """What a file of tensors holds."""

    modules: dict[str, LoraModule]
    experts: dict[str, ExpertsModule]
    tokens: TrainedTokens | None


def read_tensors(data: bytes, config: LoraConfig, backbone: BackboneShapes) -> AdapterTensors:
    """Return the adapter of each module and of experts, and the tokens that were trained.

    AdapterFault names the first tensor that does not fit.
    """
    named = match_names(config.parameters, backbone.parameters, backbone.linears)
    of_experts: dict[str, dict[str, Tensor]] = {path: {} for path in named.all_experts}
    parts: dict[str, dict[str, Tensor]] = {}
    copied: set[str] = set()
    biases: dict[str, Tensor] = {}
    vectors: dict[str, Tensor] = {}
    whole: dict[str, TokenRows] = {}
    for key, tensor in sorted(_decode(data).items(), key=itemgetter(0)):
        if config.training_tensors is not None and config.training_tensors.fullmatch(key):
            continue
        if tokens := _TOKENS.fullmatch(key):
            check_values(key, tensor)
            vectors[tokens["module"]] = tensor
            continue
        match = _KEY.fullmatch(key)
        if match is None:
            copy = compare_copy(key, tensor, backbone.linears, backbone.own, config.targets)
            copied.add(copy.module)
            if copy.bias is not None:
                biases[copy.module] = copy.bias
            if copy.rows is not None:
                whole[copy.module] = copy.rows
            continue
        part = match["part"] + ("_bias" if match["kind"] == ".bias" else "")
        parameter = named.parameter(match["module"])
        if parameter is None:
            _check_place(key, match["module"], part, config, named, backbone)
        place = match["module"] if parameter is None else parameter
        _put((parts if parameter is None else of_experts).setdefault(place, {}), part, key, tensor)
    _check_complete(parts.keys(), copied, config, named, backbone)
    bare = biases.keys() - parts.keys()
    if bare:
        raise AdapterFault(
            f"module {min(bare)} has a bias of its own and no LoRA, which is not supported"
        )
    modules = {
        module: _module(module, own, biases.get(module), config, named, backbone)
        for module, own in parts.items()
    }
    experts = read_experts(of_experts, config, backbone.parameters.experts, backbone.max_rank)
    check_experts_size(experts, backbone.max_expert_values)
    tables = None if backbone.own is None else backbone.own.tables
    if config.invocation and (biases or vectors or whole):
        raise AdapterFault(
            "alora_invocation_tokens with trained tokens, or a bias that was trained, is not"
            " supported: PEFT changes the prompt before the invocation by them"
        )
    trained = read_tokens(
        config.token_ids, vectors, whole, tables, adapted=modules, ties=config.ties
    )
    return AdapterTensors(modules, experts, trained)


def _put(own: dict[str, Tensor], part: str, key: str, tensor: Tensor) -> None:
    check_values(key, tensor)
    if part in own:
        raise AdapterFault(f"tensor {quoted(key)}: its module has another lora_{part}")
    own[part] = tensor


def _check_place(  # noqa: PLR0917 - a key and what may speak against it
    key: str,
    module: str,
    part: str,
    config: LoraConfig,
    named: ParameterTargets,
    backbone: BackboneShapes,
) -> None:
    if module not in backbone.linears and module not in named.weights:
        raise AdapterFault(f"tensor {quoted(key)}: the backbone has no such linear layer")
    if module not in named.weights and config.targets.includes(module) is False:
        raise AdapterFault(
            f"tensor {quoted(key)}: target_modules, or what narrows it, leaves its module out"
        )
    if part == "magnitude_vector" and not config.dora:
        raise AdapterFault(f"tensor {quoted(key)}: use_dora is not set")
    if part == "B_bias" and not config.lora_bias:
        raise AdapterFault(f"tensor {quoted(key)}: lora_bias is not set")


def _check_complete(
    adapted: Collection[str],
    copied: Collection[str],
    config: LoraConfig,
    named: ParameterTargets,
    backbone: BackboneShapes,
) -> None:
    if not adapted and not named.experts:
        raise AdapterFault("adapter_model.safetensors has no tensors of a LoRA adapter")
    for module in backbone.linears:
        if module not in adapted and config.targets.includes(module):
            raise AdapterFault(f"module {module} is in target_modules but has no tensors")
    for module in sorted(named.weights):
        if module not in adapted:
            raise AdapterFault(f"{module}.weight is in target_parameters but has no tensors")
        if config.targets.includes(module):
            raise AdapterFault(f"{module} is in target_modules and target_parameters")
    for name in config.targets.unsaved(copied):
        raise AdapterFault(f"{name} is in modules_to_save but has no tensors")


def _decode(data: bytes) -> dict[str, Tensor]:
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


def _wanted(config: LoraConfig) -> Iterator[str]:
    yield from ("A", "B")
    if config.dora:
        yield "magnitude_vector"
    if config.lora_bias:
        yield "B_bias"


def _module(  # noqa: PLR0917 - what was saved, and what it is held against
    module: str,
    parts: Mapping[str, Tensor],
    bias: Tensor | None,
    config: LoraConfig,
    named: ParameterTargets,
    backbone: BackboneShapes,
) -> LoraModule:
    wanted = tuple(_wanted(config))
    for part in wanted:
        if part not in parts:
            raise AdapterFault(f"module {module} has no lora_{part}")
    # PEFT's patterns are of what was named: a module, or a parameter.
    path = f"{module}.weight" if module in named.weights else module
    rank = served_rank(path, config, backbone.max_rank)
    routers = backbone.parameters.routers
    rows, columns = routers[module] if module in routers else backbone.linears[module]
    shapes = {"A": (rank, columns), "B": (rows, rank), "magnitude_vector": (rows,)}
    shapes["B_bias"] = (rows,)
    for part in wanted:
        if tuple(parts[part].shape) != shapes[part]:
            raise AdapterFault(
                f"lora_{part} of module {module} is {list(parts[part].shape)},"
                f" not {list(shapes[part])} as rank and backbone want it"
            )
    scaling = config.scaling_of(path)
    own = None
    if config.lora_bias:
        own = scaling * parts["B_bias"].float()
        bias = own if bias is None else own + bias
    magnitude = parts.get("magnitude_vector")
    return LoraModule(rank, scaling, parts["A"], parts["B"], magnitude, bias, own)
