"""A tenant's `adapter_config.json`."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, Final

from aril.worker.adapters.config import canonical, parse_config, read_fields
from aril.worker.adapters.faults import AdapterFault
from aril.worker.adapters.target_parameters import ParameterShapes
from aril.worker.adapters.tensors import BackboneShapes
from tests.fuzz.mutate import INTEGERS, bend, bend_tree, chance, pick
from tests.fuzz.target import ACCEPTED, Target, holds, told
from tests.support.adapter_folders import EXPERTS, RANK, SHAPES, fields

if TYPE_CHECKING:
    from random import Random

    from aril.worker.adapters.config import LoraConfig

BACKBONE: Final = BackboneShapes(
    linears=SHAPES,
    max_rank=8,
    parameters=ParameterShapes(experts=EXPERTS),
    max_expert_values=1_000,
)
_PATTERNS: Final = (
    *("q_proj", "layers.0", "self_attn.q_proj", r".*\.v_proj", "(q|v)_proj", "layers\\.[01]\\..*"),
    *("a*a*a*a*", "(a+)+", "(", "[", "[[a]", "[a--b]", "[a&&b]", "(?i)q", "q{1000000}", "\\1"),
    *("(?P<n>q)", "x{2,1}", "\\", "(?#", "a|b|c", "\\Z", "\\p", "^$", "(q)(v)", "[^]", "é.*", "++"),
)
_PARAMETERS: Final[tuple[Any, ...]] = (
    *(["experts.up_proj", "experts.down_proj"], ["experts.down_proj"], ["q_proj.weight"]),
    *([], ["nothing"], "experts.up_proj", [3], {}, [""], ["."], ["x"] * 65),
)
_EXTRA: Final = (
    *("bias", "modules_to_save", "use_qalora", "layers_to_transform", "lora_bias", "trainable"),
    *("fan_in_fan_out", "lora_dropout", "task_type", "layer_replication", "eva_config", "later"),
)


def config_fields(rng: Random) -> dict[str, Any]:
    """Draw the map of a configuration: mostly one that is served, or was once written by PEFT."""
    made = fields()
    for name, values in (
        ("r", (RANK, RANK, RANK, 1, 8, 9, 10**30)),
        ("lora_alpha", (6, 1.5, 0, -3, 1e300)),
        ("use_rslora", (True, False)),
        ("use_dora", (False, False, True)),
        ("target_modules", (None, "all-linear", ["q_proj", "v_proj"], ["q_proj"], [])),
        ("init_lora_weights", (True, False, "gaussian", "pissa")),
        ("base_model_name_or_path", (None, "", "acme/tiny", "/x/TINY/", "other")),
    ):
        if chance(rng, 0.15):
            made[name] = pick(rng, values)
    if chance(rng, 0.15):
        made["target_parameters"] = copy.deepcopy(pick(rng, _PARAMETERS))
        made["peft_version"] = pick(rng, (None, "0.18.1", "0.19.0", "0.19.0.dev0", "x", 3))
    for field, numbers in (("rank_pattern", (RANK, 1, 8)), ("alpha_pattern", (1, 2.5))):
        if chance(rng, 0.35):
            keys = (pick(rng, _PATTERNS) for _ in range(pick(rng, (0, 1, 2, 9))))
            made[field] = {each: pick(rng, numbers) for each in keys}
    if chance(rng, 0.2):
        made[pick(rng, _EXTRA)] = pick(rng, (None, False, "", [], {}, "none", True, 0.1, ["x"]))
    return made


def config_bytes(rng: Random) -> bytes:
    """Draw a file's bytes: a configuration, a bent one, bent text."""
    made: Any = config_fields(rng)
    kind = rng.random()
    if 0.2 < kind < 0.65:
        made = bend_tree(rng, made)
        if isinstance(made, dict) and chance(rng, 0.2):
            name = pick(rng, ("rank_pattern", "alpha_pattern"))
            pattern = bend(rng, pick(rng, _PATTERNS).encode()).decode(errors="replace")
            made[name] = {pattern: pick(rng, (RANK, 1.5, *INTEGERS))}
    text = json.dumps(made, default=repr, ensure_ascii=chance(rng, 0.5), skipkeys=True)
    data = text.encode("utf-8", errors="surrogatepass")
    if chance(rng, 0.02):
        deep = pick(rng, (15, 16, 17, 900, 100_000))
        data = pick(rng, (b"[" * deep + b"]" * deep, b'{"a":' * deep + b"1" + b"}" * deep))
    if chance(rng, 0.02):
        data = data.replace(b": 6", pick(rng, (b": 1e999", b": 9" + b"0" * 400, b": NaN")))
    return bend(rng, data) if kind > 0.75 else data


def _check_config(data: bytes) -> str:
    try:
        found = read_fields(data)
        config = parse_config(found)
    except AdapterFault as fault:
        return told_fault(fault)
    again = read_fields(canonical(found))
    holds(canonical(again) == canonical(found), "what counts for the digest comes back")
    _same(config, parse_config(again))
    for module in SHAPES:
        rank = config.rank_of(module)
        holds(type(rank) is int and rank >= 1, "a rank is a positive number")
        if rank <= BACKBONE.max_rank:  # any other is refused before it is used
            holds(abs(config.scaling_of(module)) < float("inf"), "a scaling is finite")
        holds(config.targets.includes(module) in (True, False, None), "it is told, or a regex is")
    return ACCEPTED


def _same(one: LoraConfig, other: LoraConfig) -> None:
    for name in ("base_model", "rank", "alpha", "rslora", "dora", "targets"):
        holds(getattr(one, name) == getattr(other, name), f"{name} comes back as it was")
    for name in ("rank_patterns", "alpha_patterns"):
        both = zip(getattr(one, name), getattr(other, name), strict=True)
        holds(all(a.regex.pattern == b.regex.pattern and a.value == b.value for a, b in both), name)


def told_fault(fault: AdapterFault) -> str:
    """Check that a tenant can be told; return the kind of fault, without what it names."""
    told(fault.for_job("helpdesk"))
    plain = [each for each in str(fault).split() if each.isascii() and each.isalpha()]
    return "_".join(plain[:4]) or "fault"


TARGET: Final = Target(
    name="configs",
    about="adapter_config.json: aril.worker.adapters.config",
    share=500,
    make=config_bytes,
    check=_check_config,
    factor=128,
)
