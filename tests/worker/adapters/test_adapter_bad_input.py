"""Folders that must not be served: each is refused with its code, in words that name the thing."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from aril.schemas import Epoch, ErrorCode, ErrorRecord, JobError, decode_reply, encode_reply
from aril.worker.adapters import AdapterStore
from aril.worker.adapters.config import MAX_CONFIG_BYTES
from aril.worker.adapters.folder import AdapterFolder
from tests.support.adapter_folders import (
    CONFIG_FILE,
    RANK,
    TENSORS_FILE,
    fields,
    key,
    tensors,
    write_adapter,
)

Q0 = "model.layers.0.self_attn.q_proj"


def refusal(store: AdapterStore, tenant: str = "acme", name: str = "pirate") -> JobError:
    """Return what a tenant is told who asks for the adapter."""
    with pytest.raises(JobError) as caught:
        store.load(store.find(tenant, name))
    return caught.value


def assert_invalid(error: JobError, *words: str) -> None:
    """Check the code, and that the message names the adapter and what is wrong with it."""
    assert error.code is ErrorCode.ADAPTER_INVALID
    assert error.message.startswith("adapter pirate: ")
    for word in words:
        assert word in error.message


@pytest.fixture
def pirate(root: Path) -> Path:
    """Return the folder of a good adapter, to be spoiled."""
    return write_adapter(root / "acme/pirate")


def test_the_good_adapter_is_served(store: AdapterStore, pirate: Path) -> None:
    """The folder that the other tests spoil is good: they fail for what they changed."""
    del pirate
    assert store.load(store.find("acme", "pirate")).rank == RANK


def test_flipped_bytes_in_the_header(store: AdapterStore, pirate: Path) -> None:
    """A header that is no longer JSON is called corrupt."""
    data = bytearray((pirate / TENSORS_FILE).read_bytes())
    data[8] ^= 0xFF
    (pirate / TENSORS_FILE).write_bytes(data)
    assert_invalid(refusal(store), TENSORS_FILE, "corrupt")


def test_tensors_cut_short(store: AdapterStore, pirate: Path) -> None:
    """A file whose last tensor is incomplete is called corrupt."""
    data = (pirate / TENSORS_FILE).read_bytes()
    (pirate / TENSORS_FILE).write_bytes(data[:-5])
    assert_invalid(refusal(store), TENSORS_FILE, "corrupt")


def test_bytes_after_the_tensors(store: AdapterStore, pirate: Path) -> None:
    """Bytes that no tensor owns are not carried along unseen."""
    with (pirate / TENSORS_FILE).open("ab") as file:
        file.write(b"and more")
    assert_invalid(refusal(store), TENSORS_FILE, "corrupt")


@pytest.mark.parametrize("length", [0, 5, 8, 40])
def test_header_cut_short(store: AdapterStore, pirate: Path, length: int) -> None:
    """A file that ends inside its header is refused, the empty one too."""
    data = (pirate / TENSORS_FILE).read_bytes()
    (pirate / TENSORS_FILE).write_bytes(data[:length])
    assert_invalid(refusal(store), TENSORS_FILE)


def test_huge_header_length(store: AdapterStore, pirate: Path) -> None:
    """A header that claims 2^63 bytes is refused for its claim, before it is believed."""
    data = (pirate / TENSORS_FILE).read_bytes()
    (pirate / TENSORS_FILE).write_bytes((1 << 63).to_bytes(8, "little") + data[8:])
    error = refusal(store)
    assert_invalid(error, TENSORS_FILE, "header")
    assert error.given == 1 << 63
    assert error.limit == len(data) - 8


def test_tensors_file_larger_than_any_adapter(store: AdapterStore, pirate: Path) -> None:
    """A file past what the largest rank could need is not read to its end."""
    os.truncate(pirate / TENSORS_FILE, 1 << 40)  # sparse: takes no room on the disk
    error = refusal(store)
    assert_invalid(error, TENSORS_FILE, "too large")
    assert error.given == 1 << 40


def test_reading_takes_memory_for_what_is_there(pirate: Path) -> None:
    """Not for what the largest adapter could be: that is gigabytes for a large backbone."""
    limit = 256 << 20
    folder = AdapterFolder.find(pirate.parent, pirate.name)
    assert folder is not None
    tracemalloc.start()
    try:
        folder.read(TENSORS_FILE, limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit / 100


def test_config_too_large(store: AdapterStore, pirate: Path) -> None:
    """A configuration past its limit is not parsed."""
    (pirate / CONFIG_FILE).write_text(" " * MAX_CONFIG_BYTES + "{}")
    error = refusal(store)
    assert_invalid(error, CONFIG_FILE, "too large")
    assert error.limit == MAX_CONFIG_BYTES


def test_pickle_only(store: AdapterStore, pirate: Path) -> None:
    """A pickle is never opened, and the message says what to do instead."""
    (pirate / TENSORS_FILE).rename(pirate / "adapter_model.bin")
    assert_invalid(refusal(store), "adapter_model.bin is a pickle", TENSORS_FILE)


@pytest.mark.parametrize("file", [CONFIG_FILE, TENSORS_FILE])
def test_missing_file(store: AdapterStore, pirate: Path, file: str) -> None:
    """A folder without one of its two files names the missing one."""
    (pirate / file).unlink()
    assert_invalid(refusal(store), f"{file} is missing")


def test_pipe_in_place_of_a_file(store: AdapterStore, pirate: Path) -> None:
    """A named pipe is refused instead of waiting for its writer for ever."""
    (pirate / TENSORS_FILE).unlink()
    os.mkfifo(pirate / TENSORS_FILE)
    assert_invalid(refusal(store), f"{TENSORS_FILE} is not a file")


def test_file_in_place_of_the_folder(store: AdapterStore, root: Path) -> None:
    """A file that has an adapter's name is not an adapter."""
    (root / "acme").mkdir()
    (root / "acme/pirate").write_text("")
    assert_invalid(refusal(store), "is not a folder")


@pytest.mark.parametrize(
    "text",
    ["", "not json", "[]", '{"r": 1, "r": 2}', '{"r": NaN}', "\ufeff{}", '{"r": 1}}'],
)
def test_config_that_is_not_one_json_object(store: AdapterStore, pirate: Path, text: str) -> None:
    """Anything but one JSON object with unique keys is refused."""
    (pirate / CONFIG_FILE).write_text(text)
    assert_invalid(refusal(store), CONFIG_FILE)


def test_config_that_is_not_utf8(store: AdapterStore, pirate: Path) -> None:
    """Bytes that are no UTF-8 are refused, not guessed at."""
    (pirate / CONFIG_FILE).write_bytes(json.dumps(fields()).encode("utf-16"))
    assert_invalid(refusal(store), CONFIG_FILE)


@pytest.mark.parametrize("depth", [20, 100_000])
def test_deeply_nested_config(store: AdapterStore, pirate: Path, depth: int) -> None:
    """Nesting is bounded, below and above what Python's parser bears."""
    (pirate / CONFIG_FILE).write_text('{"task_type": ' + "[" * depth + "]" * depth + "}")
    assert_invalid(refusal(store), "nested too deep")


def test_unknown_tensor(store: AdapterStore, root: Path) -> None:
    """A tensor that is no part of an adapter is not dropped silently."""
    extra = f"base_model.model.{Q0}.lora_magnitude"
    write_adapter(root / "acme/pirate", tensors() | {extra: torch.ones(6)})
    assert_invalid(refusal(store), extra)


def test_tensor_of_an_unknown_module(store: AdapterStore, root: Path) -> None:
    """A tensor for a layer that the backbone lacks is named."""
    extra = key("model.layers.2.self_attn.q_proj", "A")
    write_adapter(root / "acme/pirate", tensors() | {extra: torch.ones(RANK, 4)})
    assert_invalid(refusal(store), extra)


def test_tensor_outside_the_target_modules(store: AdapterStore, root: Path) -> None:
    """PEFT would leave out a module that is not targeted, so its tensors are refused."""
    write_adapter(root / "acme/pirate", target_modules=["q_proj"])
    assert_invalid(refusal(store), "v_proj", "target_modules")


def test_target_module_without_tensors(store: AdapterStore, root: Path) -> None:
    """A layer whose tensors were lost is noticed, not served as the plain backbone."""
    kept = {name: tensor for name, tensor in tensors().items() if Q0 not in name}
    write_adapter(root / "acme/pirate", kept)
    assert_invalid(refusal(store), Q0, "no tensors")


def test_no_tensors_at_all(store: AdapterStore, root: Path) -> None:
    """An empty tensors file is not an adapter, whatever the targets."""
    write_adapter(root / "acme/pirate", {}, target_modules="all-linear")
    assert_invalid(refusal(store), "no tensors")


@pytest.mark.parametrize("half", ["A", "B"])
def test_half_of_a_pair_missing(store: AdapterStore, root: Path, half: str) -> None:
    """A without B, or B without A, names the missing half."""
    kept = tensors()
    del kept[key(Q0, half)]
    write_adapter(root / "acme/pirate", kept)
    assert_invalid(refusal(store), f"module {Q0} has no lora_{half}")


@pytest.mark.parametrize(
    ("half", "shape"),
    [
        ("A", (RANK, 5)),
        ("A", (RANK + 1, 4)),
        ("A", (RANK * 4,)),
        ("B", (7, RANK)),
        ("B", (RANK, 6)),
    ],
)
def test_wrong_shape(store: AdapterStore, root: Path, half: str, shape: tuple[int, ...]) -> None:
    """A tensor that does not fit rank and layer is named with both shapes."""
    write_adapter(root / "acme/pirate", tensors() | {key(Q0, half): torch.ones(shape)})
    assert_invalid(refusal(store), f"lora_{half} of module {Q0}", str(list(shape)))


def test_rank_over_the_limit(store: AdapterStore, root: Path) -> None:
    """A rank that no slot has room for is told with the limit."""
    write_adapter(root / "acme/pirate", r=9)
    error = refusal(store)
    assert_invalid(error, "rank 9")
    assert (error.limit, error.given) == (8, 9)


def test_a_rank_of_any_size_can_be_told(store: AdapterStore, root: Path) -> None:
    """JSON has integers of any length, records have not: the message says it, `given` does not."""
    write_adapter(root / "acme/pirate", r=10**400)
    error = refusal(store)
    record = ErrorRecord.of(error, job="j", epoch=Epoch(1, 1), worker="w", index=0)
    assert decode_reply(encode_reply(record)) == record
    assert (record.limit, record.given) == (8, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_not_finite(
    store: AdapterStore, root: Path, value: float, dtype: torch.dtype
) -> None:
    """One NaN or infinity would spread through its row, so the tensor is refused."""
    weights = {name: tensor.to(dtype) for name, tensor in tensors().items()}
    weights[key(Q0, "B")][3, 1] = value
    write_adapter(root / "acme/pirate", weights)
    assert_invalid(refusal(store), key(Q0, "B"), "NaN")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.float8_e4m3fn])
def test_dtype_that_is_not_served(store: AdapterStore, root: Path, dtype: torch.dtype) -> None:
    """Only the three float types that PEFT writes are read."""
    write_adapter(root / "acme/pirate", tensors() | {key(Q0, "A"): torch.ones(RANK, 4).to(dtype)})
    assert_invalid(refusal(store), key(Q0, "A"), str(dtype).removeprefix("torch."))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", 1),
        ("use_bdlora", True),
        ("bias", "some"),
        ("modules_to_save", ["lm_head"]),
        ("modules_to_save", ["(a+)+$"]),
        ("modules_to_save", "lm_head"),
        ("modules_to_save", [f"m{n}" for n in range(17)]),
        ("lora_bias", "yes"),
        ("exclude_modules", [1]),
        ("layers_to_transform", ["0"]),
        ("layers_to_transform", True),
        ("layers_pattern", 7),
        ("layers_pattern", ["layers"] * 17),
        ("layer_replication", [[0, 1]]),
        ("megatron_config", {"tensor_model_parallel_size": 2}),
        ("a_field_of_tomorrow", 1),
        ("init_lora_weights", "pissa_niter_4"),
        ("peft_type", "IA3"),
        ("peft_type", None),
        ("r", 0),
        ("r", True),
        ("r", 2.0),
        ("lora_alpha", "16"),
        ("lora_alpha", 10**400),
        ("use_rslora", 1),
        ("target_modules", 7),
        ("rank_pattern", ["q_proj"]),
        ("rank_pattern", {"q_proj": -1}),
        ("rank_pattern", {"(unclosed": 3}),
        ("alpha_pattern", {"q_proj": "much"}),
        ("base_model_name_or_path", 5),
    ],
)
def test_field_that_is_not_served(store: AdapterStore, root: Path, field: str, value: Any) -> None:
    """A field that we cannot honour is refused by name, whatever it would have done."""
    write_adapter(root / "acme/pirate", **{field: value})
    assert_invalid(refusal(store), field)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(.*)*x",
        ".*.*.*x",
        "(a|aa){9}",
        "(.|.)" * 20,
        "(.|(.|(.|.)))",
        ".*.*(a|b|c|d|e)",
        r"(q)\1",
        "(?=.*)q",
        "[(]q",
        "a" * 999 + "*",
    ],
)
def test_regular_expression_that_could_hang_a_worker(
    store: AdapterStore, root: Path, pattern: str
) -> None:
    """A tenant's pattern is run only if its cost is bounded."""
    write_adapter(root / "acme/pirate", rank_pattern={pattern: RANK})
    assert_invalid(refusal(store), "rank_pattern", "too complex")


@pytest.mark.parametrize("pattern", ["[[a]q", "[a--b]q", "[a&&b]q", "[^]||b]q", "q[~~]"])
def test_sets_that_a_later_python_reads_otherwise(
    store: AdapterStore, root: Path, pattern: str
) -> None:
    """Refused without a warning of Python's, which would be a line of ours for a tenant's word."""
    write_adapter(root / "acme/pirate", alpha_pattern={pattern: 1})
    assert_invalid(refusal(store), "alpha_pattern", "something else")


def test_too_many_patterns(store: AdapterStore, root: Path) -> None:
    """Plain names have a bound, too: each is tried on each module."""
    write_adapter(root / "acme/pirate", rank_pattern={f"q{each}": 1 for each in range(10_001)})
    error = refusal(store)
    assert_invalid(error, "rank_pattern", "too many")
    assert (error.limit, error.given) == (10_000, 10_001)


def test_too_many_regular_expressions(store: AdapterStore, root: Path) -> None:
    """Their number is bounded too; plain names are not counted."""
    patterns = {f"layers.{number}.*q_proj": RANK for number in range(9)}
    write_adapter(root / "acme/pirate", rank_pattern=patterns)
    error = refusal(store)
    assert_invalid(error, "rank_pattern")
    assert (error.limit, error.given) == (8, 9)


def test_messages_stay_short(store: AdapterStore, root: Path) -> None:
    """What a file says is quoted, escaped and cut: it cannot flood a reply or forge a log line."""
    write_adapter(root / "acme/pirate", use_dora="yes\nERROR forged" + "x" * 10_000)
    message = refusal(store).message
    assert len(message) < 300
    assert "\n" not in message


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "",
        "/etc/passwd",
        "../globex/secret",
        "pirate/",
        "a\0b",
        "Pirate",
        "pirate\n",
        "shared",
        "-pirate",
        "a" * 64,
        "pirate@abc",
        "pirate@" + "g" * 64,
    ],
)
def test_names_that_are_no_names(store: AdapterStore, pirate: Path, name: str) -> None:
    """A name that could be a path, or is not one of ours, is an unknown adapter."""
    del pirate
    assert refusal(store, name=name).code is ErrorCode.UNKNOWN_ADAPTER


@pytest.mark.parametrize("tenant", ["..", "", "shared", "acme/../globex", "ACME"])
def test_tenants_that_are_no_tenants(store: AdapterStore, pirate: Path, tenant: str) -> None:
    """A tenant's name is checked again where it becomes a folder."""
    del pirate
    assert refusal(store, tenant=tenant).code is ErrorCode.INVALID_JOB


def test_adapter_of_another_tenant(store: AdapterStore, pirate: Path) -> None:
    """Another tenant's adapter does not exist, and no message tells it from one that does not."""
    del pirate
    error = refusal(store, tenant="globex")
    assert error.code is ErrorCode.UNKNOWN_ADAPTER
    assert error.message == refusal(store, tenant="initech").message


def link_to_secret(root: Path) -> None:
    """Make the adapter a link to another tenant's."""
    (root / "acme").mkdir()
    (root / "acme/pirate").symlink_to(root / "globex/secret")


def link_to_secret_config(root: Path) -> None:
    """Make one file of the adapter a link to another tenant's."""
    folder = write_adapter(root / "acme/pirate")
    (folder / CONFIG_FILE).unlink()
    (folder / CONFIG_FILE).symlink_to("../../globex/secret/adapter_config.json")


def link_to_secret_tensors(root: Path) -> None:
    """Do the same with the other file, by way of a link in between."""
    folder = write_adapter(root / "acme/pirate")
    (folder / TENSORS_FILE).unlink()
    (folder / "inner").symlink_to(root / "globex")
    (folder / TENSORS_FILE).symlink_to("inner/secret/adapter_model.safetensors")


def link_to_another_home(root: Path) -> None:
    """Make the tenant's whole folder a link to another tenant's."""
    write_adapter(root / "globex/pirate")
    (root / "acme").symlink_to("globex")


def link_in_a_circle(root: Path) -> None:
    """Make two links point at each other."""
    (root / "acme").mkdir()
    (root / "acme/pirate").symlink_to("other")
    (root / "acme/other").symlink_to("pirate")


@pytest.mark.parametrize(
    "spoil",
    [
        link_to_secret,
        link_to_secret_config,
        link_to_secret_tensors,
        link_to_another_home,
        link_in_a_circle,
    ],
)
def test_links_that_leave_the_owners_folder(
    store: AdapterStore, root: Path, spoil: Callable[[Path], None]
) -> None:
    """No link leads out of a tenant's folder, and the message does not say where it led."""
    write_adapter(root / "globex/secret", {name: tensor * 2 for name, tensor in tensors().items()})
    spoil(root)
    error = refusal(store)
    assert_invalid(error, "link")
    assert "secret" not in error.message
    assert "globex" not in error.message


def test_link_out_of_the_store(store: AdapterStore, root: Path, tmp_path: Path) -> None:
    """A link that leaves the store altogether is refused the same way."""
    outside = tmp_path / "outside"
    outside.mkdir()
    save_file(tensors(), outside / TENSORS_FILE)
    (root / "acme").mkdir()
    (root / "acme/pirate").symlink_to(outside)
    assert_invalid(refusal(store), "link")
