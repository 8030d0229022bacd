"""What tells one backbone's weights from another's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from aril.worker.engine.weights_digest import PIECE_BYTES, PIECES, weights_digest

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

LARGE = 16 * PIECES * PIECE_BYTES


def weights() -> dict[str, Tensor]:
    """Return a large tensor, a small one and one without dimensions."""
    generator = torch.Generator().manual_seed(0)
    return {
        "large": torch.randn(LARGE // 4, generator=generator),
        "small": torch.randn(3, 4, generator=generator),
        "one": torch.tensor(2.0),
    }


def digest(folder: Path, tensors: dict[str, Tensor]) -> str:
    """Return the digest of these weights in one file."""
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return weights_digest(folder, torch.float32)


def test_the_same_weights_have_the_same_digest(tmp_path: Path) -> None:
    """In another file, another order, or split into several."""
    whole = digest(tmp_path / "one", weights())
    assert digest(tmp_path / "two", dict(reversed(weights().items()))) == whole
    split = tmp_path / "split"
    split.mkdir()
    save_file({"small": weights()["small"]}, split / "a.safetensors", {"format": "pt"})
    rest = {name: weights()[name] for name in ("one", "large")}
    save_file(rest, split / "b.safetensors")
    placed = {"small": "a.safetensors", "one": "b.safetensors", "large": "b.safetensors"}
    (split / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    assert weights_digest(split, torch.float32) == whole


@pytest.mark.parametrize("name", ["large", "small", "one"])
def test_a_tensor_that_was_trained_shows(tmp_path: Path, name: str) -> None:
    """Whichever it is, and by however little."""
    changed = weights()
    changed[name] = changed[name] * 1.001
    assert digest(tmp_path / "a", weights()) != digest(tmp_path / "b", changed)


def test_both_ends_of_a_tensor_count(tmp_path: Path) -> None:
    """A table that has grown a row, or lost its first one, is another."""
    plain = digest(tmp_path / "a", weights())
    for at in (0, -1):
        changed = weights()
        changed["large"][at] += 1
        assert digest(tmp_path / "b", changed) != plain


def test_names_shapes_and_types_count(tmp_path: Path) -> None:
    """The same bytes under another name, in another shape or type are other weights."""
    found = {digest(tmp_path / "a", weights())}
    small = weights()["small"]
    for name, tensor in (("little", small), ("small", small.T), ("small", small.view(torch.int32))):
        others = {key: value for key, value in weights().items() if key != "small"}
        found.add(digest(tmp_path / "a", others | {name: tensor.contiguous()}))
    assert len(found) == 4


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """One line at start, as for any folder that is not whole."""
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 16)
    with pytest.raises(ValueError, match="no safetensors file"):
        weights_digest(tmp_path, torch.float32)


def test_the_type_that_is_served_in_counts(tmp_path: Path) -> None:
    """Workers whose processors choose differently answer by different models, and say so."""
    digest(tmp_path, weights())
    types = torch.float32, torch.bfloat16, torch.float16
    assert len({weights_digest(tmp_path, dtype) for dtype in types}) == len(types)


def test_eight_bits_count(tmp_path: Path) -> None:
    """Over either type they are another model; what is stored keeps the digest that it had."""
    plain = digest(tmp_path, weights())
    assert weights_digest(tmp_path, torch.float32, "stored") == plain
    types = torch.float32, torch.bfloat16
    found = {weights_digest(tmp_path, dtype, "int8") for dtype in types}
    assert len(found | {plain}) == 3
