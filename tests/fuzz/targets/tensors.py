"""A tenant's `adapter_model.safetensors`, beside a configuration."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from safetensors.torch import save

from aril.worker.adapters.config import parse_config, read_fields
from aril.worker.adapters.faults import AdapterFault
from aril.worker.adapters.store import content_digest
from aril.worker.adapters.tensors import read_tensors
from tests.fuzz.mutate import INTEGERS, TEXTS, bend, bend_tree, chance, pick
from tests.fuzz.target import ACCEPTED, Target, holds
from tests.fuzz.targets.configs import BACKBONE, config_fields, told_fault
from tests.support.adapter_folders import (
    EXPERTS,
    RANK,
    SHAPES,
    expert_tensors,
    fields,
    key,
    tensors,
)

if TYPE_CHECKING:
    from random import Random


class Files(NamedTuple):
    """What stands in a folder."""

    config: bytes
    model: bytes


@cache
def _models() -> tuple[bytes, ...]:
    """Return files of tensors: good ones, and ones of another shape, dtype or name."""
    dora = {
        f"base_model.model.{module}.lora_magnitude_vector": torch.ones(rows)
        for module, (rows, _) in SHAPES.items()
    }
    first = next(iter(SHAPES))
    return (
        save(tensors()),
        save(tensors() | dora),
        save({name: each.to(torch.bfloat16) for name, each in tensors().items()}),
        save({name: each.to(torch.float16) for name, each in tensors().items()}),
        save({name: each.to(torch.int8) for name, each in tensors().items()}),
        save({name: each for name, each in tensors().items() if ".0." in name}),
        save(tensors() | {key(first, "A"): torch.zeros(0, 4)}),
        save(tensors() | {key(first, "A"): torch.full((RANK, 4), float("nan"))}),
        save(tensors() | {"base_model.model.lm_head.lora_A.weight": torch.zeros(3, 4)}),
        save({}),
        save(tensors() | expert_tensors()),
        save(expert_tensors(before=True)),
    )


_DTYPES: Final = (
    *(
        "F64",
        "F32",
        "F16",
        "BF16",
        "I64",
        "U8",
        "BOOL",
        "F8_E4M3",
        "F8_E5M2",
        "F4",
        "C64",
        "F6_E2M3",
    ),
    *("U64", "F8_E8M0", "f32", ""),
)


def adapter_files(rng: Random) -> Files:
    """Draw a configuration with tensors that may fit it, or are bent."""
    config = json.dumps(config_fields(rng)).encode() if chance(rng, 0.5) else _plain_config()
    data = pick(rng, _models()[:3]) if chance(rng, 0.7) else pick(rng, _models())
    kind = rng.random()
    if 0.2 < kind < 0.7:
        data = _bent_header(rng, data)
    if kind > 0.8:
        data = bend(rng, data)
    return Files(config, data)


@cache
def _plain_config() -> bytes:
    return json.dumps(fields()).encode()


def _bent_header(rng: Random, data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    names = list(header)
    if names and chance(rng, 0.6):
        entry = header[pick(rng, names)]
        if "dtype" in entry and chance(rng, 0.5):
            entry["dtype"] = pick(rng, _DTYPES)
        elif "shape" in entry and chance(rng, 0.6):
            entry["shape"] = pick(
                rng, ([], [0], [-1], [12], [2**62, 4], [1, 3, 4], [3, 2.0], [6, 2])
            )
        elif "data_offsets" in entry:
            start, stop = entry["data_offsets"]
            entry["data_offsets"] = pick(
                rng, ([stop, start], [start, start], [0, 0], [start, 2**63])
            )
    elif chance(rng, 0.5):
        header = bend_tree(rng, header)
    elif names:
        header[pick(rng, names) + pick(rng, TEXTS)] = header.pop(pick(rng, names))
    if isinstance(header, dict) and chance(rng, 0.1):
        header["__metadata__"] = pick(rng, ({}, {"a": "b"}, {"a": 1}, [], None))
    text = json.dumps(header, default=repr).encode()
    length = len(text) if chance(rng, 0.95) else pick(rng, INTEGERS) & (2**64 - 1)
    return length.to_bytes(8, "little") + text + body


def _check_tensors(case: Files) -> str:
    try:
        found = read_fields(case.config)
        config = parse_config(found)
        modules, experts, _ = read_tensors(case.model, config, BACKBONE)
    except AdapterFault as fault:
        return told_fault(fault)
    holds(modules or experts, "an adapter changes something")
    for path, stack in experts.items():
        count, outputs, inputs, _ = EXPERTS[path]
        holds(1 <= stack.rank <= BACKBONE.max_rank, "a rank within the bound")
        holds(tuple(stack.a.shape) == (count, stack.rank, inputs), "A fits the experts")
        holds(tuple(stack.b.shape) == (count, outputs, stack.rank), "B fits the experts")
    for path, module in modules.items():
        rows, columns = SHAPES[path]
        holds(1 <= module.rank <= BACKBONE.max_rank, "a rank within the bound")
        holds(tuple(module.a.shape) == (module.rank, columns), "A fits the backbone")
        holds(tuple(module.b.shape) == (rows, module.rank), "B fits the backbone")
        for each in (module.a, module.b, module.magnitude):
            holds(each is None or bool(torch.isfinite(each).all()), "every value is finite")
        holds((module.magnitude is not None) == config.dora, "magnitudes go with DoRA")
    content_digest(found, case.model)
    return ACCEPTED


TARGET: Final = Target(
    name="tensors",
    about="adapter_model.safetensors: aril.worker.adapters.tensors.read_tensors",
    share=120,
    make=adapter_files,
    check=_check_tensors,
    size=lambda case: len(case.config) + len(case.model),
)
