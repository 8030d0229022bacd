"""Copies of the backbone's weights beside A and B: left out where they are equal, else refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from aril.schemas import ErrorCode, JobError
from aril.worker.adapters import AdapterStore
from aril.worker.adapters.own_weights import OwnWeights
from aril.worker.adapters.trained_tokens import TokenTables
from tests.support.adapter_folders import SHAPES, TENSORS_FILE, tensors, write_adapter

PREFIX = "base_model.model."
HEAD = f"{PREFIX}lm_head.base_layer.weight"
TIED = {"lm_head.weight": "model.embed_tokens.weight"}


def embeddings(dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a backbone's embeddings [40, 4], no value of which a half type can hold."""
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(40, 4, generator=generator) + 1 / 3).to(dtype)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the folder of a backbone with tied embeddings, a norm and a linear with a bias."""
    folder = tmp_path / "model"
    folder.mkdir()
    own = {
        "model.embed_tokens.weight": embeddings(),
        "model.norm.weight": torch.ones(4),
        "model.layers.0.self_attn.q_proj.weight": torch.ones(6, 4),
        "model.layers.0.self_attn.q_proj.bias": torch.arange(6.0),
    }
    save_file(own, folder / "model.safetensors")
    return folder


@pytest.fixture
def own(model: Path, monkeypatch: pytest.MonkeyPatch) -> OwnWeights:
    """Return its weights, which are read in pieces of three rows."""
    monkeypatch.setattr("aril.worker.adapters.own_weights._VALUES_AT_ONCE", 12)
    return OwnWeights(model, TIED, "model.")


def store_of(root: Path, own: OwnWeights) -> AdapterStore:
    """Return a store for that backbone."""
    linears = SHAPES | {"lm_head": (40, 4)}
    return AdapterStore(root, base_model=None, linear_shapes=linears, max_rank=8, own=own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_a_copy_in_another_type_is_a_copy(own: OwnWeights, name: str, dtype: torch.dtype) -> None:
    """A trainer loads the backbone in its own type; a tied weight goes by either name."""
    assert own.equals(name, embeddings(dtype)) is True


def test_a_backbone_in_a_half_type_equals_its_copy_in_fp32(tmp_path: Path) -> None:
    """The copy is then what the folder has, and no more."""
    save_file({"lm_head.weight": embeddings(torch.bfloat16)}, tmp_path / "model.safetensors")
    own = OwnWeights(tmp_path, {}, "model.")
    assert own.equals("lm_head.weight", embeddings(torch.bfloat16).float()) is True
    assert own.equals("lm_head.weight", embeddings()) is True  # it rounds to that


@pytest.mark.parametrize("row", [0, 20, 39])
def test_one_other_value_is_another_weight(own: OwnWeights, row: int) -> None:
    """In whichever piece it lies."""
    changed = embeddings()
    changed[row, 3] += 0.25
    assert own.equals("lm_head.weight", changed) is False


def test_another_shape_is_another_weight(own: OwnWeights) -> None:
    """A vocabulary that was made larger, for one."""
    assert own.equals("lm_head.weight", torch.cat([embeddings(), torch.ones(1, 4)])) is False
    assert own.equals("model.embed_tokens.weight", embeddings().flatten()) is False


def test_a_single_number(tmp_path: Path) -> None:
    """A weight without any dimension is compared as well."""
    save_file({"scale.weight": torch.tensor(2.0)}, tmp_path / "model.safetensors")
    own = OwnWeights(tmp_path, {}, "model.")
    assert own.equals("scale.weight", torch.tensor(2.0)) is True
    assert own.equals("scale.weight", torch.tensor(2.5)) is False


def test_names_that_the_backbone_lacks(own: OwnWeights) -> None:
    """There is nothing to compare with."""
    assert own.equals("model.embed_positions.weight", embeddings()) is None


def test_a_checkpoint_of_the_bare_model(tmp_path: Path) -> None:
    """It has no prefix in its names: GPT-2's on the hub is one."""
    save_file({"embed_tokens.weight": embeddings()}, tmp_path / "model.safetensors")
    assert OwnWeights(tmp_path, TIED, "model.").equals("lm_head.weight", embeddings()) is True


def test_a_checkpoint_in_several_files(tmp_path: Path) -> None:
    """The index tells which file has a tensor."""
    save_file({"a.weight": torch.ones(3)}, tmp_path / "one.safetensors")
    save_file({"lm_head.weight": embeddings()}, tmp_path / "two.safetensors")
    index = {"weight_map": {"a.weight": "one.safetensors", "lm_head.weight": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    own = OwnWeights(tmp_path, {}, "model.")
    assert own.equals("lm_head.weight", embeddings()) is True
    assert own.equals("a.weight", torch.ones(3)) is True


def test_copies_are_left_out(own: OwnWeights, tmp_path: Path) -> None:
    """An adapter is what it changes: neither memory nor a digest of the content is lost."""
    copies = {
        HEAD: embeddings(),
        f"{PREFIX}model.embed_tokens.weight": embeddings(torch.bfloat16),
        f"{PREFIX}model.norm.weight": torch.ones(4),
        f"{PREFIX}model.layers.0.self_attn.q_proj.base_layer.bias": torch.arange(6.0),
    }
    root = tmp_path / "store"
    write_adapter(root / "acme/plain")
    write_adapter(root / "acme/copies", tensors() | copies, modules_to_save=["norm"], bias="all")
    store = store_of(root, own)
    plain, found = (store.load(store.find("acme", name)) for name in ("plain", "copies"))
    assert found.modules.keys() == plain.modules.keys() == SHAPES.keys()
    assert found.nbytes == plain.nbytes
    assert found.digest != plain.digest


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (HEAD, embeddings() + 1, "not the backbone's own"),
        (f"{PREFIX}model.norm.weight", torch.full((4,), 1.01), "not the backbone's own"),
        (f"{PREFIX}model.nothing.weight", torch.ones(4), "no such weight"),
        (f"{PREFIX}lm_head.weight", embeddings().double(), "float64"),
        (f"{PREFIX}model.embed_tokens.lora_embedding_A", torch.ones(3, 40), "LoRA of embeddings"),
        (
            f"{PREFIX}lm_head.token_adapter.trainable_tokens_delta",
            torch.ones(1, 4),
            "trained tokens",
        ),
    ],
)
def test_what_is_no_copy_is_refused_by_name(
    own: OwnWeights, tmp_path: Path, key: str, value: Tensor, told: str
) -> None:
    """A weight that was trained whole would be lost without a sign."""
    write_adapter(tmp_path / "store/acme/pirate", tensors() | {key: value})
    store = store_of(tmp_path / "store", own)
    with pytest.raises(JobError, match=told) as caught:
        store.load(store.find("acme", "pirate"))
    assert caught.value.code is ErrorCode.ADAPTER_INVALID
    assert key in caught.value.message or "trained tokens" in told


def test_a_module_to_save_that_was_not_saved(own: OwnWeights, tmp_path: Path) -> None:
    """What PEFT would look for and not find is missed here too."""
    write_adapter(tmp_path / "store/acme/pirate", modules_to_save=["lm_head"])
    store = store_of(tmp_path / "store", own)
    with pytest.raises(JobError, match="lm_head is in modules_to_save but has no tensors"):
        store.load(store.find("acme", "pirate"))


def test_the_limit_on_files_leaves_room_for_copies(tmp_path: Path) -> None:
    """A copy of head and embeddings may be larger than any adapter; tied, there may be two."""
    wide = torch.zeros(40, 70_000)
    save_file({"model.embed_tokens.weight": wide}, tmp_path / "model.safetensors")
    tables = TokenTables("model.embed_tokens", "lm_head", 40, 70_000, tied=True)
    own = OwnWeights(tmp_path, TIED, "model.", tables)
    copies = {HEAD: wide, f"{PREFIX}model.embed_tokens.weight": wide.clone()}
    folder = write_adapter(tmp_path / "store/acme/pirate", tensors() | copies)
    bare = AdapterStore(tmp_path / "store", base_model=None, linear_shapes=SHAPES, max_rank=8)
    assert (folder / TENSORS_FILE).stat().st_size > 2 * wide.nbytes
    with pytest.raises(JobError, match="too large"):
        bare.find("acme", "pirate")
    store = store_of(tmp_path / "store", own)
    assert store.load(store.find("acme", "pirate")).rank == 3
