"""`adapter_config.json` of a PEFT folder, read closed-world: what we do not honour, we refuse.

A field that changes what the adapter computes and that we ignored would give wrong answers without
a sign. So a field is honoured (below), or concerns only training, or must be switched off.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aril.worker.adapters.faults import AdapterFault, quoted
from aril.worker.adapters.invocation import read_invocation
from aril.worker.adapters.json_files import read_object
from aril.worker.adapters.patterns import Pattern, first_match, read_patterns
from aril.worker.adapters.target_parameters import read_names
from aril.worker.adapters.targets import Targets, read_targets
from aril.worker.adapters.trained_tokens import read_indices

MAX_CONFIG_BYTES: Final = 1 << 20
"""Room for a rank pattern that names each of ten thousand modules."""

HONOURED: Final = frozenset(
    {
        "peft_type",
        "base_model_name_or_path",
        "r",
        "lora_alpha",
        "use_rslora",
        "use_dora",
        "rank_pattern",
        "alpha_pattern",
        "target_modules",
        "target_parameters",
        "peft_version",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "init_lora_weights",
        "lora_bias",
        "bias",
        "modules_to_save",
        "ensure_weight_tying",
        "trainable_token_indices",
        "alora_invocation_tokens",
    }
)
TRAINING_ONLY: Final = frozenset(
    {
        "auto_mapping",
        "corda_config",
        "eva_config",
        "fan_in_fan_out",  # PEFT corrects it to what the layer is
        "inference_mode",
        "lora_dropout",
        "lora_ga_config",
        "loftq_config",
        "monteclora_config",  # noise in training; what it saves beside A and B is left out
        "megatron_core",  # names a library; counts only with megatron_config, which we refuse
        "qalora_group_size",  # counts only with use_qalora, which we refuse
        "revision",
        "runtime_config",
        "task_type",
        "velora_config",  # another backward pass; what it saves beside A and B is left out
    }
)
# Initialisations that leave the backbone's weights alone. The others (PiSSA, OLoRA, CorDA, LoftQ,
# LoRA-GA, …) train against changed ones, which a folder that still names them does not carry.
_PLAIN_INITIALISATIONS: Final = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
_BIASES: Final = (None, "none", "all", "lora_only")

# What some ways of training save beside A and B, and read in training only.
_TRAINING_TENSORS: Final = {
    "velora_config": r"lora_velora_embed(?:\.default)?",
    "monteclora_config": r"lora_monteclora_sampler\.(?:default\.)?[a-z_]+",
}


@dataclass(frozen=True, slots=True, eq=False)
class LoraConfig:
    """What an adapter's configuration says about how to apply its tensors."""

    base_model: str | None
    rank: int
    alpha: float
    rslora: bool
    dora: bool
    lora_bias: bool
    rank_patterns: tuple[Pattern[int], ...]
    alpha_patterns: tuple[Pattern[float], ...]
    targets: Targets
    parameters: tuple[str, ...]
    """Paths of parameters, or endings of them, that have LoRA and need be no linear's."""
    version: object
    """What PEFT says that it is; None: nothing."""
    ties: bool
    """Whether PEFT would tie what is saved whole as the backbone ties it."""
    token_ids: Mapping[str, tuple[int, ...]]
    """Tokens with vectors of their own, by the end of their table's path."""
    invocation: tuple[int, ...]
    """Tokens of the prompt from whose last occurrence on the adapter works; () for everywhere."""
    training_tensors: re.Pattern[str] | None
    """What the way of training has left among the tensors, and answers do not need."""

    def rank_of(self, module: str) -> int:
        """Return the rank that the configuration gives `module`."""
        return first_match(self.rank_patterns, module, self.rank)

    def scaling_of(self, module: str) -> float:
        """Return alpha / r, or alpha / √r with rsLoRA (arXiv 2312.03732), for `module`."""
        rank = self.rank_of(module)
        alpha = first_match(self.alpha_patterns, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def read_fields(data: bytes) -> dict[str, Any]:
    """Decode the JSON object; AdapterFault if it is not exactly one."""
    return read_object(data, "adapter_config.json")


def canonical(fields: Mapping[str, Any]) -> bytes:
    """Return the fields as the bytes that count for the digest.

    Whitespace and escapes do not count. Order does: the first pattern that matches wins.
    """
    return json.dumps(fields, separators=(",", ":")).encode()


def parse_config(fields: Mapping[str, Any]) -> LoraConfig:
    """Interpret the fields as PEFT does; AdapterFault names the first that we cannot honour."""
    if fields.get("peft_type") != "LORA":
        raise AdapterFault(f"peft_type is {quoted(fields.get('peft_type'))}, not 'LORA'")
    for name, value in fields.items():
        if name not in HONOURED and name not in TRAINING_ONLY and not _is_off(value):
            raise AdapterFault(f"{quoted(name)} is set to {quoted(value)}, which is not supported")
    if fields.get("init_lora_weights", True) not in _PLAIN_INITIALISATIONS:
        raise AdapterFault(
            f"init_lora_weights is {quoted(fields['init_lora_weights'])}, which changes the"
            " backbone: save the adapter converted to plain LoRA"
        )
    if fields.get("bias") not in _BIASES:
        raise AdapterFault(f"bias is {quoted(fields['bias'])}, which is not supported")
    base_model = fields.get("base_model_name_or_path")
    if base_model is not None and not isinstance(base_model, str):
        raise AdapterFault("base_model_name_or_path is not a string")
    return LoraConfig(
        base_model=base_model or None,
        rank=_rank("r", fields.get("r", 8)),
        alpha=_alpha("lora_alpha", fields.get("lora_alpha", 8)),
        rslora=_flag("use_rslora", fields.get("use_rslora")),
        dora=_flag("use_dora", fields.get("use_dora")),
        lora_bias=_flag("lora_bias", fields.get("lora_bias")),
        rank_patterns=read_patterns("rank_pattern", fields, _rank),
        alpha_patterns=read_patterns("alpha_pattern", fields, _alpha),
        targets=read_targets(fields),
        parameters=read_names(fields),
        version=fields.get("peft_version"),
        ties=_flag("ensure_weight_tying", fields.get("ensure_weight_tying")),
        token_ids=read_indices(fields),
        invocation=read_invocation(fields),
        training_tensors=_training_tensors(fields),
    )


def _is_off(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})


def _flag(name: str, value: object) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise AdapterFault(f"{name} is {quoted(value)}, not true or false")
    return value


def _rank(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise AdapterFault(f"{name} is {quoted(value)}, not a positive integer")
    return value


def _alpha(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise AdapterFault(f"{name} is {quoted(value)}, not a number")
    try:
        alpha = float(value)
    except OverflowError:
        alpha = math.inf
    if not math.isfinite(alpha):
        raise AdapterFault(f"{name} is {quoted(value)}, not a finite number")
    return alpha


def _training_tensors(fields: Mapping[str, Any]) -> re.Pattern[str] | None:
    names = [names for field, names in _TRAINING_TENSORS.items() if fields.get(field)]
    return re.compile(rf".+\.(?:{'|'.join(names)})") if names else None
