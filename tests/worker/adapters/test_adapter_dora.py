"""DoRA folders: a magnitude for each pair, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from aril.schemas import ErrorCode, JobError
from aril.worker.adapters import AdapterStore, AdapterWeights
from tests.support.adapter_folders import (
    RANK,
    SHAPES,
    TENSORS_FILE,
    key,
    tensors,
    write_adapter,
)

Q0 = "model.layers.0.self_attn.q_proj"


def magnitude_key(module: str) -> str:
    """Return PEFT's name of a magnitude."""
    return f"base_model.model.{module}.lora_magnitude_vector"


def dora_tensors() -> dict[str, Tensor]:
    """Return A, B and a random magnitude of every linear."""
    generator = torch.Generator().manual_seed(1)
    magnitudes = {
        magnitude_key(module): torch.rand(rows, generator=generator) + 0.5
        for module, (rows, _) in SHAPES.items()
    }
    return tensors() | magnitudes


def load(store: AdapterStore) -> AdapterWeights:
    """Find and read the one adapter."""
    return store.load(store.find("acme", "pirate"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_magnitudes_arrive_as_they_were_written(
    store: AdapterStore, root: Path, dtype: torch.dtype
) -> None:
    """Each module gets its own, in the dtype of the file; bytes count, those of its gains too."""
    weights = {name: tensor.to(dtype) for name, tensor in dora_tensors().items()}
    write_adapter(root / "acme/pirate", weights, use_dora=True)
    adapter = load(store)
    for module, lora in adapter.modules.items():
        assert lora.magnitude is not None
        assert lora.magnitude.dtype is dtype
        assert torch.equal(lora.magnitude, weights[magnitude_key(module)])
    gains = sum(4 * len(weights[magnitude_key(module)]) for module in adapter.modules)
    assert adapter.nbytes == gains + sum(tensor.nbytes for tensor in weights.values())


def test_plain_lora_has_no_magnitude(store: AdapterStore, root: Path) -> None:
    """Without `use_dora`, or with it switched off, a pair is a pair."""
    write_adapter(root / "acme/pirate", use_dora=False)
    assert all(module.magnitude is None for module in load(store).modules.values())


def test_the_key_may_end_in_weight(store: AdapterStore, root: Path) -> None:
    """PEFT writes `lora_magnitude_vector` and reads `lora_magnitude_vector.weight` as well."""
    weights = {
        name + ".weight" if "magnitude" in name else name: tensor
        for name, tensor in dora_tensors().items()
    }
    write_adapter(root / "acme/pirate", weights, use_dora=True)
    found = load(store).modules[Q0].magnitude
    assert found is not None
    assert torch.equal(found, weights[magnitude_key(Q0) + ".weight"])


def test_another_magnitude_is_another_digest(store: AdapterStore, root: Path) -> None:
    """The magnitude is content."""
    write_adapter(root / "acme/pirate", dora_tensors(), use_dora=True)
    first = store.find("acme", "pirate").digest
    changed = dora_tensors()
    changed[magnitude_key(Q0)][0] += 1
    write_adapter(root / "acme/pirate", changed, use_dora=True)
    assert store.find("acme", "pirate").digest != first


def test_the_largest_adapter_fits_the_limit_on_files(root: Path) -> None:
    """Every linear at the highest rank in fp32, with magnitudes, and a header of the longest kind.

    Linears so large that the room for the header cannot hide a sum that is too small.
    """
    shapes = {f"layers.{n}.up": (600_000, 4) for n in range(4)}
    store = AdapterStore(root, base_model=None, linear_shapes=shapes, max_rank=1)
    weights = {}
    for module, (rows, columns) in shapes.items():
        weights[key(module, "A")] = torch.ones(1, columns)
        weights[key(module, "B")] = torch.ones(rows, 1)
        weights[magnitude_key(module)] = torch.ones(rows)
    folder = write_adapter(root / "acme/pirate", weights, r=1, use_dora=True, target_modules=["up"])
    plain = 4 * sum(rows + columns for rows, columns in shapes.values())
    assert (folder / TENSORS_FILE).stat().st_size > plain + (8 << 20)
    assert load(store).rank == 1


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    """Make a spoiler that takes a tensor away."""
    return lambda weights: weights.__delitem__(name)


def with_(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], None]:
    """Make a spoiler that sets a tensor."""
    return lambda weights: weights.__setitem__(name, tensor)


M0 = magnitude_key(Q0)
SPOILED: dict[str, tuple[Callable[[dict[str, Tensor]], None], tuple[str, ...]]] = {
    "no magnitude": (without(M0), (Q0, "no lora_magnitude_vector")),
    "magnitude without A": (without(key(Q0, "A")), (Q0, "no lora_A")),
    "too short": (with_(M0, torch.ones(5)), (Q0, "[5]", "[6]")),
    "a column": (with_(M0, torch.ones(6, 1)), (Q0, "[6, 1]")),
    "of a convolution": (with_(M0, torch.ones(1, 6, 1, 1)), (Q0, "[1, 6, 1, 1]")),
    "NaN": (with_(M0, torch.full((6,), float("nan"))), (M0, "NaN")),
    "infinite": (with_(M0, torch.full((6,), float("inf"))), (M0, "infinite")),
    "integers": (with_(M0, torch.ones(6, dtype=torch.int32)), (M0, "int32")),
    "named twice": (with_(M0 + ".weight", torch.ones(6)), (M0, "another lora_magnitude_vector")),
    "named with and without .default": (
        with_(M0 + ".default", torch.ones(6)),
        (M0 + ".default", "another lora_magnitude_vector"),
    ),
    "another adapter's name in the key": (with_(M0 + ".sft", torch.ones(6)), (M0 + ".sft",)),
    "unknown module": (
        with_(magnitude_key("model.embed_tokens"), torch.ones(6)),
        ("model.embed_tokens", "no such linear layer"),
    ),
    "embedding": (
        with_("base_model.model.model.embed_tokens.lora_embedding_A", torch.ones(RANK, 6)),
        ("lora_embedding_A",),
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_does_not_fit_is_refused_by_name(store: AdapterStore, root: Path, name: str) -> None:
    """Exactly one finite vector of the linear's outputs for each pair."""
    spoil, words = SPOILED[name]
    weights = dora_tensors()
    spoil(weights)
    write_adapter(root / "acme/pirate", weights, use_dora=True)
    with pytest.raises(JobError) as caught:
        load(store)
    assert caught.value.code is ErrorCode.ADAPTER_INVALID
    assert all(word in caught.value.message for word in words), caught.value.message


def test_magnitudes_without_use_dora_are_refused(store: AdapterStore, root: Path) -> None:
    """PEFT would drop them with a warning, and the answers would be others."""
    folder = write_adapter(root / "acme/pirate")
    save_file(dora_tensors(), folder / TENSORS_FILE)
    assert magnitude_key(Q0) in load_file(folder / TENSORS_FILE)
    with pytest.raises(JobError, match="use_dora is not set"):
        load(store)
