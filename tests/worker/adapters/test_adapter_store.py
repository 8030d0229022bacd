"""Finding and reading adapters: whose, which version, and what comes out."""

import json
import os
from pathlib import Path

import pytest
import safetensors
import torch

from aril.schemas import ErrorCode, JobError
from aril.worker.adapters import AdapterStore
from tests.support.adapter_folders import (
    CONFIG_FILE,
    SHAPES,
    TENSORS_FILE,
    fields,
    key,
    tensors,
    write_adapter,
)

Q0 = "model.layers.0.self_attn.q_proj"


def test_weights_arrive_as_they_were_written(store: AdapterStore, root: Path) -> None:
    """Modules, tensors, scaling and size are those of the folder."""
    weights = {name: torch.randn_like(tensor) for name, tensor in tensors().items()}
    write_adapter(root / "acme/pirate", weights)
    ref = store.find("acme", "pirate")
    adapter = store.load(ref)
    assert (adapter.name, adapter.digest, adapter.rank) == ("pirate", ref.digest, 3)
    assert set(adapter.modules) == set(SHAPES)
    assert adapter.modules[Q0].scaling == 2.0
    for module, lora in adapter.modules.items():
        assert torch.equal(lora.a, weights[key(module, "A")])
        assert torch.equal(lora.b, weights[key(module, "B")])
    assert adapter.nbytes == sum(tensor.nbytes for tensor in weights.values())


def test_keys_may_hold_the_adapters_name(store: AdapterStore, root: Path) -> None:
    """A state that was saved past PEFT has `default` in its keys, and PEFT loads it."""
    weights = {
        name.replace(".weight", ".default.weight"): value for name, value in tensors().items()
    }
    write_adapter(root / "acme/named", weights)
    assert set(store.load(store.find("acme", "named")).modules) == set(SHAPES)


def test_a_bias_of_b_is_scaled(store: AdapterStore, root: Path) -> None:
    """With `lora_bias` each pair needs one; it is added as it arrives, so it arrives scaled."""
    biases = {
        key(name, "B").replace("weight", "bias"): torch.ones(rows)
        for name, (rows, _) in SHAPES.items()
    }
    write_adapter(root / "acme/biased", tensors() | biases, lora_bias=True)
    adapter = store.load(store.find("acme", "biased"))
    assert {
        tuple(module.bias.tolist())
        for module in adapter.modules.values()
        if module.bias is not None
    } == {(2.0,) * 6, (2.0,) * 2}
    write_adapter(root / "acme/biased", tensors(), lora_bias=True)
    with pytest.raises(JobError, match="has no lora_B_bias"):
        store.load(store.find("acme", "biased"))
    write_adapter(root / "acme/biased", tensors() | biases)
    with pytest.raises(JobError, match="lora_bias is not set"):
        store.load(store.find("acme", "biased"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_tensors_keep_the_dtype_of_the_file(
    store: AdapterStore, root: Path, dtype: torch.dtype
) -> None:
    """Host memory holds what the file holds, not twice as much."""
    write_adapter(root / "acme/pirate", {name: t.to(dtype) for name, t in tensors().items()})
    adapter = store.load(store.find("acme", "pirate"))
    assert {lora.a.dtype for lora in adapter.modules.values()} == {dtype}


def test_own_adapter_comes_before_a_shared_one(store: AdapterStore, root: Path) -> None:
    """A tenant's name for its own wins; everybody else gets the shared one."""
    write_adapter(root / "acme/pirate")
    write_adapter(root / "shared/pirate", lora_alpha=9)
    own, shared = store.find("acme", "pirate"), store.find("globex", "pirate")
    assert (own.owner, shared.owner) == ("tenant", "shared")
    assert own.digest != shared.digest


def test_a_digest_insists_on_one_content(store: AdapterStore, root: Path) -> None:
    """`name@digest` finds that content, also behind one's own adapter of the name, or nothing."""
    write_adapter(root / "acme/pirate")
    write_adapter(root / "shared/pirate", lora_alpha=9)
    shared = store.find("globex", "pirate")
    assert store.find("acme", f"pirate@{shared.digest}") == shared
    with pytest.raises(JobError) as caught:
        store.find("acme", "pirate@" + "0" * 64)
    assert caught.value.code is ErrorCode.UNKNOWN_ADAPTER


def test_digest_is_of_the_content_alone(store: AdapterStore, root: Path) -> None:
    """Neither place, time nor layout of the configuration counts."""
    write_adapter(root / "acme/one")
    folder = write_adapter(root / "globex/two")
    (folder / CONFIG_FILE).write_text(json.dumps(fields(), indent=7))
    os.utime(folder / TENSORS_FILE, (1, 1))
    assert store.find("acme", "one").digest == store.find("globex", "two").digest


def test_a_new_content_is_another_digest(store: AdapterStore, root: Path) -> None:
    """Replaced tensors and replaced fields are both seen, though the sizes stay the same."""
    folder = write_adapter(root / "acme/pirate")
    digests = {store.find("acme", "pirate").digest}
    write_adapter(folder, {name: tensor + 1 for name, tensor in tensors().items()})
    digests.add(store.find("acme", "pirate").digest)
    write_adapter(folder, lora_alpha=7)
    digests.add(store.find("acme", "pirate").digest)
    data = bytearray((folder / TENSORS_FILE).read_bytes())
    data[-1] ^= 1
    with (folder / TENSORS_FILE).open("r+b") as file:  # in place: the same inode
        file.write(data)
    digests.add(store.find("acme", "pirate").digest)
    assert len(digests) == 4


def test_an_unchanged_file_is_not_read_again(
    store: AdapterStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second look-up costs no read, so that each job can make one."""
    write_adapter(root / "acme/pirate")
    first = store.find("acme", "pirate")

    def refuse(*_args: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr("aril.worker.adapters.folder.AdapterFolder.read", refuse)
    assert store.find("acme", "pirate") == first


def test_load_tells_the_digest_of_what_it_read(store: AdapterStore, root: Path) -> None:
    """An adapter that is replaced between look-up and load does not pass for the old one."""
    folder = write_adapter(root / "acme/pirate")
    ref = store.find("acme", "pirate")
    write_adapter(folder, lora_alpha=7)
    assert store.load(ref).digest != ref.digest
    assert store.load(ref).digest == store.find("acme", "pirate").digest


def test_links_within_the_owners_folder_are_followed(store: AdapterStore, root: Path) -> None:
    """Versions can be switched by one link, the way that is atomic."""
    write_adapter(root / "acme/pirate-1")
    write_adapter(root / "acme/pirate-2", lora_alpha=7)
    (root / "acme/pirate").symlink_to("pirate-1")
    assert store.find("acme", "pirate").digest == store.find("acme", "pirate-1").digest
    (root / "acme/next").symlink_to("pirate-2")
    (root / "acme/next").rename(root / "acme/pirate")
    assert store.find("acme", "pirate").digest == store.find("acme", "pirate-2").digest


def test_a_store_behind_a_link(root: Path, tmp_path: Path) -> None:
    """The store's own folder may be a link: whoever set it up is trusted."""
    write_adapter(root / "acme/pirate")
    (tmp_path / "mount").symlink_to(root)
    store = AdapterStore(tmp_path / "mount", base_model=None, linear_shapes=SHAPES, max_rank=8)
    assert store.load(store.find("acme", "pirate")).rank == 3


def test_a_missing_store_has_no_adapters(tmp_path: Path) -> None:
    """A folder that does not exist is an empty store, not an accident."""
    store = AdapterStore(tmp_path / "none", base_model=None, linear_shapes=SHAPES, max_rank=8)
    with pytest.raises(JobError) as caught:
        store.find("acme", "pirate")
    assert caught.value.code is ErrorCode.UNKNOWN_ADAPTER


def test_a_store_that_cannot_be_read_is_not_the_tenants_fault(
    store: AdapterStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk stays an OSError, so that nobody is told their adapter is invalid."""
    write_adapter(root / "acme/pirate")

    def fail(*_args: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="Input/output"):
        store.find("acme", "pirate")


def test_dtype_that_torch_lacks(store: AdapterStore, root: Path) -> None:
    """A dtype that safetensors knows and PyTorch does not is refused, not a crash."""
    folder = write_adapter(root / "acme/pirate")
    entry = {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}
    header = json.dumps({key(Q0, "A"): entry}).encode()
    data = len(header).to_bytes(8, "little") + header + b"\0"
    assert len(safetensors.deserialize(data)) == 1
    (folder / TENSORS_FILE).write_bytes(data)
    with pytest.raises(JobError, match="'F4'") as caught:
        store.load(store.find("acme", "pirate"))
    assert caught.value.code is ErrorCode.ADAPTER_INVALID
