"""A base model's name as trainers write it: a reason to warn, and to refuse only where told to."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from aril.schemas import ErrorCode, JobError
from aril.worker.adapters import AdapterCache, AdapterStore
from aril.worker.adapters.base_names import folder_name, may_be_same
from aril.worker.adapters.store import BaseCheck
from tests.support.adapter_folders import SHAPES, write_adapter


@pytest.mark.parametrize(
    ("made_for", "served", "same"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct", True),
        ("/home/someone/SmolLM2-135M-instruct/", "SmolLM2-135M-Instruct", True),
        ("unsloth/Qwen2.5-7B-Instruct-bnb-4bit", "Qwen2.5-7B-Instruct", True),
        ("unsloth/Llama-3.2-1B-unsloth-bnb-4bit", "meta-llama/Llama-3.2-1B", True),
        ("./hub/models--org--Base/snapshots/0f1e2d3c", "Base", True),
        ("C:\\models\\Base", "Base", True),
        ("C:\\hub\\models--org--Base\\snapshots\\0f1e", "org/Base", True),
        (None, "Base", True),
        ("org/Base", None, True),
        ("", "Base", True),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", "SmolLM2-135M-Instruct", False),
        ("org/Base-7B", "Base-13B", False),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "model", False),
        ("unsloth/Meta-Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct", False),
        ("bnb-4bit", "4bit", False),
    ],
)
def test_names_of_one_model(made_for: str | None, served: str | None, same: bool) -> None:
    """A path of the trainer's machine, a mirror with fewer bits and a published name can be one."""
    assert may_be_same(made_for, served) is same


def test_a_folder_is_called_the_same_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link, a dot and a relative path are the folder that they lead to."""
    (tmp_path / "Base").mkdir()
    (tmp_path / "current").symlink_to("Base")
    monkeypatch.chdir(tmp_path / "Base")
    assert {folder_name(each) for each in (".", "../current", "../Base/", tmp_path / "Base")} == {
        "Base"
    }


def test_a_snapshot_of_the_hub_is_called_by_its_repository(tmp_path: Path) -> None:
    """The folder's own name is a hash, which no trainer writes down."""
    snapshot = tmp_path / "models--org--Base-7B" / "snapshots" / "0f1e2d3c4b5a"
    assert folder_name(snapshot) == "org/Base-7B"


def store_of(root: Path, base_check: BaseCheck) -> AdapterStore:
    """Return a store that serves `acme/tiny`."""
    return AdapterStore(
        root, base_model="acme/tiny", linear_shapes=SHAPES, max_rank=8, base_check=base_check
    )


async def test_another_name_is_served_with_a_warning(root: Path) -> None:
    """Shapes decide. The log tells both names once an adapter is read, and the count goes up."""
    write_adapter(root / "acme/pirate", base_model_name_or_path="acme/large\nERROR forged")
    write_adapter(root / "acme/plain")
    cache = AdapterCache(store_of(root, "warn"), 1 << 20)
    with capture_logs() as logged:
        weights = await cache.get("acme", "pirate")
        await cache.get("acme", "pirate")
        await cache.get("acme", "plain")
    assert weights.warning is not None
    assert cache.other_bases == 1
    (told,) = (each for each in logged if each["event"] == "adapter_base_differs")
    assert (told["owner"], told["adapter"]) == ("acme", "pirate")
    assert "'acme/tiny'" in told["why"]
    assert "\n" not in told["why"]


def test_strict_refuses_another_name(root: Path) -> None:
    """An operator can insist on the name, and the refusal tells both."""
    write_adapter(root / "acme/pirate", base_model_name_or_path="acme/large")
    store = store_of(root, "strict")
    with pytest.raises(JobError, match=r"'acme/large'.*'acme/tiny'") as caught:
        store.load(store.find("acme", "pirate"))
    assert caught.value.code is ErrorCode.ADAPTER_INVALID
