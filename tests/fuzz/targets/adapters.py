"""A tenant's adapter: its configuration, its tensors, and the folder that both stand in."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from safetensors.torch import save

from schemas import JobError
from tests.fuzz.mutate import INTEGERS, TEXTS, bend, bend_tree, chance, pick
from tests.fuzz.target import ACCEPTED, Target, holds, told
from tests.fuzz.targets.signatures import memory_folder
from tests.support.adapter_folders import RANK, SHAPES, fields, key, tensors
from worker.adapters import AdapterStore
from worker.adapters.config import canonical, parse_config, read_fields
from worker.adapters.faults import AdapterFault
from worker.adapters.store import content_digest
from worker.adapters.weights import BackboneShapes, read_modules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

    from worker.adapters.config import LoraConfig

_BACKBONE: Final = BackboneShapes(linears=SHAPES, max_rank=8)
_PATTERNS: Final = (
    *("q_proj", "layers.0", "self_attn.q_proj", r".*\.v_proj", "(q|v)_proj", "layers\\.[01]\\..*"),
    *("a*a*a*a*", "(a+)+", "(", "[", "[[a]", "[a--b]", "[a&&b]", "(?i)q", "q{1000000}", "\\1"),
    *("(?P<n>q)", "x{2,1}", "\\", "(?#", "a|b|c", "\\Z", "\\p", "^$", "(q)(v)", "[^]", "é.*", "++"),
)
_EXTRA: Final = (
    *("bias", "modules_to_save", "use_qalora", "layers_to_transform", "lora_bias", "trainable"),
    *("fan_in_fan_out", "lora_dropout", "task_type", "layer_replication", "eva_config", "later"),
)


def _config(rng: Random) -> dict[str, Any]:
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
    for field, numbers in (("rank_pattern", (RANK, 1, 8)), ("alpha_pattern", (1, 2.5))):
        if chance(rng, 0.35):
            keys = (pick(rng, _PATTERNS) for _ in range(pick(rng, (0, 1, 2, 9))))
            made[field] = {each: pick(rng, numbers) for each in keys}
    if chance(rng, 0.2):
        made[pick(rng, _EXTRA)] = pick(rng, (None, False, "", [], {}, "none", True, 0.1, ["x"]))
    return made


def _config_bytes(rng: Random) -> bytes:
    made: Any = _config(rng)
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
        return _told(fault)
    again = read_fields(canonical(found))
    holds(canonical(again) == canonical(found), "what counts for the digest comes back")
    _same(config, parse_config(again))
    for module in SHAPES:
        rank = config.rank_of(module)
        holds(type(rank) is int and rank >= 1, "a rank is a positive number")
        if rank <= _BACKBONE.max_rank:  # any other is refused before it is used
            holds(abs(config.scaling_of(module)) < float("inf"), "a scaling is finite")
        config.is_target(module)
    return ACCEPTED


def _same(one: LoraConfig, other: LoraConfig) -> None:
    for name in ("base_model", "rank", "alpha", "rslora", "dora", "targets"):
        holds(getattr(one, name) == getattr(other, name), f"{name} comes back as it was")
    for name in ("rank_patterns", "alpha_patterns"):
        both = zip(getattr(one, name), getattr(other, name), strict=True)
        holds(all(a.regex.pattern == b.regex.pattern and a.value == b.value for a, b in both), name)


def _told(fault: AdapterFault) -> str:
    """Check that a tenant can be told; return the kind of fault, without what it names."""
    told(fault.for_job("helpdesk"))
    plain = [each for each in str(fault).split() if each.isascii() and each.isalpha()]
    return "_".join(plain[:4]) or "fault"


class _Files(NamedTuple):
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


def _make_files(rng: Random) -> _Files:
    config = json.dumps(_config(rng)).encode() if chance(rng, 0.5) else _plain_config()
    data = pick(rng, _models()[:3]) if chance(rng, 0.7) else pick(rng, _models())
    kind = rng.random()
    if 0.2 < kind < 0.7:
        data = _bent_header(rng, data)
    if kind > 0.8:
        data = bend(rng, data)
    return _Files(config, data)


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


def _check_tensors(case: _Files) -> str:
    try:
        found = read_fields(case.config)
        config = parse_config(found)
        modules = read_modules(case.model, config, _BACKBONE)
    except AdapterFault as fault:
        return _told(fault)
    holds(modules, "an adapter changes something")
    for path, module in modules.items():
        rows, columns = SHAPES[path]
        holds(1 <= module.rank <= _BACKBONE.max_rank, "a rank within the bound")
        holds(tuple(module.a.shape) == (module.rank, columns), "A fits the backbone")
        holds(tuple(module.b.shape) == (rows, module.rank), "B fits the backbone")
        for each in (module.a, module.b, module.magnitude):
            holds(each is None or bool(torch.isfinite(each).all()), "every value is finite")
        holds((module.magnitude is not None) == config.dora, "magnitudes go with DoRA")
    content_digest(found, case.model)
    return ACCEPTED


_home: list[Path] = []


@contextmanager
def _store_around() -> Iterator[None]:
    with memory_folder() as root:
        (root / "acme" / "tuned").mkdir(parents=True)
        (root / "shared").mkdir()
        _home.append(root)
        try:
            yield
        finally:
            _home.pop()


class _Folder(NamedTuple):
    """A folder, the name that it is asked for by, and how its files are there."""

    files: _Files
    name: str
    config_is: str
    model_is: str


def _make_folder(rng: Random) -> _Folder:
    kinds = ("file", "file", "file", "file", "missing", "folder", "link", "loop", "out", "pickle")
    name = pick(rng, ("tuned", "tuned", "tuned@" + "0f" * 32, "other", "../acme/tuned", *TEXTS))
    files = _make_files(rng)
    if chance(rng, 0.3):
        files = _Files(_config_bytes(rng), files.model)
    return _Folder(files, "tuned" if chance(rng, 0.8) else name, pick(rng, kinds), pick(rng, kinds))


def _check_folder(case: _Folder) -> str:
    root = _home[-1]
    folder = root / "acme" / "tuned"
    _lay(folder / "adapter_config.json", case.files.config, case.config_is)
    _lay(folder / "adapter_model.safetensors", case.files.model, case.model_is)
    # A new store: one that has seen a version of a file does not read it again.
    store = AdapterStore(root, base_model="acme/tiny", linear_shapes=SHAPES, max_rank=8)
    try:
        ref = store.find("acme", case.name)
        holds(ref.folder.path == folder, "what is found is in its owner's folder")
        weights = store.load(ref)
        holds(weights.digest == ref.digest, "what is read is what was found")
        exact = store.find("acme", f"tuned@{weights.digest}")
        holds(exact.digest == weights.digest, "a digest finds its content")
    except JobError as error:
        return told(error)
    else:
        return ACCEPTED
    finally:
        for each in folder.iterdir():
            each.rmdir() if each.is_dir() and not each.is_symlink() else each.unlink()


def _lay(path: Path, data: bytes, kind: str) -> None:
    if kind == "file":
        path.write_bytes(data)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        place = path.with_suffix(".stored")
        place.write_bytes(data)
        path.symlink_to(place.name)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "out":
        path.symlink_to(os.devnull)
    elif kind == "pickle":
        path.with_name("adapter_model.bin").write_bytes(data)


CONFIGS: Final = Target(
    name="configs",
    about="adapter_config.json: worker.adapters.config",
    share=500,
    make=_config_bytes,
    check=_check_config,
    factor=128,
)
TENSORS: Final = Target(
    name="tensors",
    about="adapter_model.safetensors: worker.adapters.weights.read_modules",
    share=120,
    make=_make_files,
    check=_check_tensors,
    size=lambda case: len(case.config) + len(case.model),
)
FOLDERS: Final = Target(
    name="folders",
    about="adapter folders, with links that lead elsewhere: worker.adapters.store",
    share=60,
    make=_make_folder,
    check=_check_folder,
    size=lambda case: len(case.files.config) + len(case.files.model),
    factor=128,
    around=_store_around,
)
