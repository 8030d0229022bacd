"""`target_parameters`: LoRA of parameters that are no linear's, as PEFT's ParamWrapper has it.

Mixtures of experts keep the weights of all experts in one tensor, and their router's in a module of
its own. PEFT wraps the module that holds such a parameter; where it wraps one for two parameters,
one wrapper lies in the other, and the keys of the inner one have a `base_layer` more.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from torch import Tensor

from aril.worker.adapters.faults import AdapterFault, quoted

MAX_NAMES: Final = 64
"""Each is compared with each parameter that can be adapted."""
_WRAPPED: Final = ".base_layer"
_WEIGHT: Final = ".weight"
# PEFT 0.19 is the first that takes the last dimension of experts' weights for their input where
# that is what it is. 0.17, the first with `target_parameters`, tells no version.
_FIRST_BY_MEANING: Final = (0, 19)
_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})\.\d+(?P<dev>\.dev)?")


class ExpertShape(NamedTuple):
    """The weights of all experts of a layer that are multiplied at the same place."""

    experts: int
    outputs: int
    inputs: int
    transposed: bool = False
    """Whether they are kept as [experts, in, out]; else as [experts, out, in]."""

    @property
    def values_of_a_rank(self) -> int:
        """How many numbers A and B have for each rank."""
        return self.experts * (self.outputs + self.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterShapes:
    """What of a backbone only `target_parameters` can name."""

    experts: Mapping[str, ExpertShape] = field(default_factory=dict)
    """By the parameter's path; those of one module in its own order."""
    routers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(out, in) of modules that multiply by a `weight` of theirs and are no linears, by path."""


@dataclass(frozen=True, slots=True)
class ParameterTargets:
    """The parameters that a configuration names, among those that can be adapted."""

    experts: Mapping[str, tuple[str, ...]]
    """By module, in the order in which PEFT wraps them: the first lies innermost."""
    weights: frozenset[str]
    """Modules, linears or routers, whose `weight` is named."""

    def parameter(self, module: str) -> str | None:
        """Return the experts' parameter whose keys name `module`; None for a module without.

        AdapterFault where the wrappers are more than the configuration names.
        """
        holder = module
        while holder.endswith(_WRAPPED):
            holder = holder.removesuffix(_WRAPPED)
        named = self.experts.get(holder)
        if named is None:
            return None
        depth = (len(module) - len(holder)) // len(_WRAPPED)
        if depth >= len(named):
            raise AdapterFault(
                f"{holder} has LoRA of a parameter that target_parameters does not name"
            )
        return named[len(named) - 1 - depth]

    @property
    def all_experts(self) -> tuple[str, ...]:
        """Every experts' parameter that is named."""
        return tuple(path for paths in self.experts.values() for path in paths)


_APART: Final = (
    "lora_dropout",
    "use_dora",
    "lora_bias",
    "fan_in_fan_out",
    "velora_config",
    "alora_invocation_tokens",
)


def read_names(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the field, and refuse beside it what PEFT refuses; AdapterFault names the culprit."""
    names = fields.get("target_parameters") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AdapterFault(f"target_parameters is {quoted(names)}, not a list of names")
    if len(names) > MAX_NAMES:
        raise AdapterFault(
            "target_parameters has too many names", limit=MAX_NAMES, given=len(names)
        )
    if names:
        for other in _APART:
            if fields.get(other):
                raise AdapterFault(f"{other} is set beside target_parameters, which PEFT refuses")
    return tuple(names)


def match_names(
    names: Collection[str], shapes: ParameterShapes, linears: Collection[str]
) -> ParameterTargets:
    """Find what is named, by path or by the end of it; AdapterFault names what is nothing."""
    left = set(names)
    experts: dict[str, tuple[str, ...]] = {}
    weights = set()

    def is_named(path: str) -> bool:
        found = {name for name in names if path == name or path.endswith(f".{name}")}
        left.difference_update(found)
        return bool(found)

    for path in shapes.experts if names else ():
        if is_named(path):
            module = path.rpartition(".")[0]
            experts[module] = (*experts.get(module, ()), path)
    for module in (*shapes.routers, *linears) if names else ():
        if is_named(f"{module}{_WEIGHT}"):
            weights.add(module)
    if left:
        raise AdapterFault(
            f"target_parameters has {quoted(min(left))}, which is no experts' weight, router or"
            " linear of this backbone that can be adapted"
        )
    return ParameterTargets(experts, frozenset(weights))


def split_experts(  # noqa: PLR0917 - what was saved, and how to read it
    path: str, a: Tensor, b: Tensor, rank: int, shape: ExpertShape, version: object
) -> tuple[Tensor, Tensor]:
    """Return A [experts, rank, in] and B [experts, out, rank], views of what PEFT has saved.

    It keeps A as [experts · rank, in], expert after expert, and B as [out, rank · experts], rank
    after rank. Before 0.19 PEFT took the middle dimension of every parameter for the input: where
    experts are kept as [experts, out, in], A and B of such a folder have changed places. Shapes
    tell, and where in and out are equal `version`, the configuration's `peft_version`.
    AdapterFault where nothing fits.
    """
    wide = shape.experts * rank
    today = a.shape == (wide, shape.inputs) and b.shape == (shape.outputs, wide)
    before = (
        not shape.transposed
        and a.shape == (wide, shape.outputs)
        and b.shape == (shape.inputs, wide)
    )
    if not (today or before):
        raise AdapterFault(
            f"lora_A and lora_B of {path} are {list(a.shape)} and {list(b.shape)}, not"
            f" {[wide, shape.inputs]} and {[shape.outputs, wide]} as rank, experts and backbone"
            " want it"
        )
    first = a.view(shape.experts, rank, -1)  # [experts, rank, ·]
    second = b.view(-1, rank, shape.experts).permute(2, 0, 1)  # [experts, ·, rank]
    if today and (not before or _is_by_meaning(path, version)):
        return first, second
    return second.transpose(1, 2), first.transpose(1, 2)


def _is_by_meaning(path: str, version: object) -> bool:
    found = _VERSION.match(version) if isinstance(version, str) else None
    if found is None:
        if version is not None:
            raise AdapterFault(
                f"peft_version is {quoted(version)}, which decides how to read {path}"
            )
        return False
    number = int(found[1]), int(found[2])
    if number == _FIRST_BY_MEANING and found["dev"]:
        raise AdapterFault(
            f"peft_version is {quoted(version)}, and versions of that name read {path} in two ways:"
            " save the adapter with a released one"
        )
    return number >= _FIRST_BY_MEANING
