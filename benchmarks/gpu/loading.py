"""Loads single modules of vLLM and SGLang from `build/peers`, without installing either.

Bare packages with a `__path__` stand in for theirs, so that no `__init__` of theirs runs, and a few
stubs give what the kernels' modules import. `deploy/` and the image know nothing of this.
"""

from __future__ import annotations

import enum
import importlib
import sys
import types
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from benchmarks.gpu.failures import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PEERS = Path("build/peers")
Loaded = TypeVar("Loaded")


class _Silent:
    """A logger that says nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class _Platform:
    """What the kernels ask of vLLM's platform."""

    fp8_dtype = staticmethod(lambda: torch.float8_e4m3fn)
    is_rocm = is_xpu = staticmethod(lambda: False)
    is_cuda = is_cuda_alike = staticmethod(torch.cuda.is_available)

    @staticmethod
    def has_device_capability(wanted: int) -> bool:
        """Compare as vLLM does, 90 for 9.0."""
        return torch.cuda.is_available() and _capability() >= wanted

    @staticmethod
    def is_device_capability(wanted: int) -> bool:
        """Compare for one capability."""
        return torch.cuda.is_available() and _capability() == wanted

    @staticmethod
    def is_device_capability_family(wanted: int) -> bool:
        """Compare the major number."""
        return torch.cuda.is_available() and _capability() // 10 == wanted // 10


def _capability() -> int:
    major, minor = torch.cuda.get_device_capability()
    return major * 10 + minor


class _KvQuantMode(enum.IntEnum):
    NONE = 0
    FP8_PER_TENSOR = 1
    INT8_PER_TOKEN_HEAD = 2
    FP8_PER_TOKEN_HEAD = 3
    INT4_PER_TOKEN_HEAD = 4


class _Environment(types.ModuleType):
    """Every setting is off unless it was given."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return False


class _SglangSettings:
    """Every setting of SGLang is off."""

    def __getattr__(self, name: str) -> Any:
        return types.SimpleNamespace(get=lambda: False)


@dataclass
class LoraBatchInfo:
    """The fields of SGLang's class of this name that its kernels read."""

    use_cuda_graph: bool
    bs: int
    num_segments: int
    seg_indptr: torch.Tensor
    weight_indices: torch.Tensor
    lora_ranks: torch.Tensor
    scalings: torch.Tensor
    max_len: int
    seg_lens: torch.Tensor
    permutation: torch.Tensor | None = None


class _Struct:
    """What is left of msgspec.Struct for a class that only holds values."""

    def __init_subclass__(cls, **_: object) -> None:
        """Take and ignore the options."""

    def __init__(self, **values: object) -> None:
        for name, value in values.items():
            setattr(self, name, value)


def _module(name: str, path: Path | None = None, **names: object) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(names)
    if path is not None:
        module.__path__ = [str(path)]
    return _register(name, module)


def _register(name: str, module: types.ModuleType) -> types.ModuleType:
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)
    return module


def _packages(root: Path, *names: str) -> None:
    for name in names:
        _module(name, root / name.replace(".", "/"))


@contextmanager
def _own_modules(prefix: str) -> Iterator[None]:
    """Forget the peer's modules afterwards: a second load with other settings starts afresh."""
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == prefix]:
            del sys.modules[name]


def _no_registration(**_: object) -> None:
    """Make the peer keep its plain function instead of an operator of torch's."""
    raise AttributeError


# torch has hardly a kernel for the unsigned types, not even a conversion's: the bits are the same.
SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def _to_device(values: list[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=SIGNED.get(dtype, dtype), device=device).view(dtype)


def loaded(name: str, load: Callable[[], list[Loaded]]) -> list[Loaded]:
    """Load a peer's providers; none, with one line that says why, where that fails."""
    try:
        return load()
    except Exception as error:  # noqa: BLE001 - whatever its modules raise: the others go on
        print(f"{name} is left out: it did not load: {first_line(error)}")
        return []


def load_vllm(root: Path = PEERS, *, batch_invariant: bool = False) -> types.SimpleNamespace:
    """Load vLLM's dense LoRA and its unified attention, in one of its two modes."""
    import triton  # noqa: PLC0415 - the caller has chosen the interpreter by now
    import triton.language as tl  # noqa: PLC0415

    home = root / "vllm"
    with _own_modules("vllm"):
        _packages(home, "vllm", "vllm.utils")
        settings = _Environment("vllm.envs")
        settings.__dict__.update(
            VLLM_BATCH_INVARIANT=batch_invariant,
            VLLM_TUNED_CONFIG_FOLDER=None,
            VLLM_LORA_DISABLE_PDL=True,
        )
        _register("vllm.envs", settings)
        _module("vllm.logger", init_logger=lambda _: _Silent())
        _module("vllm.platforms", current_platform=_Platform)
        _module("vllm.triton_utils", tl=tl, triton=triton)
        _module("vllm.utils.math_utils", next_power_of_2=triton.next_power_of_2)
        _module(
            "vllm.utils.torch_utils",
            direct_register_custom_op=_no_registration,
            async_tensor_h2d=_to_device,
        )
        _packages(home, "vllm.lora", "vllm.lora.ops", "vllm.lora.ops.triton_ops")
        _packages(home, "vllm.v1", "vllm.v1.attention", "vllm.v1.attention.ops")
        _module("vllm.v1.kv_cache_interface", KVQuantMode=_KvQuantMode)
        ops = "vllm.lora.ops.triton_ops."
        attention = importlib.import_module("vllm.v1.attention.ops.triton_unified_attention")
        return types.SimpleNamespace(
            shrink=importlib.import_module(ops + "lora_shrink_op").lora_shrink,
            expand=importlib.import_module(ops + "lora_expand_op").lora_expand,
            metadata=importlib.import_module(ops + "lora_kernel_metadata").LoRAKernelMeta,
            utils=importlib.import_module(ops + "utils"),
            attention=attention.unified_attention,
        )


def load_sglang(root: Path = PEERS) -> types.SimpleNamespace:
    """Load SGLang's `triton`, `csgmv` and `triton_v2` kernels."""
    home = root / "sglang"
    with _own_modules("sglang"):
        _packages(home, "sglang", "sglang.srt", "sglang.srt.lora")
        _module("sglang.srt.lora.utils", LoRABatchInfo=LoraBatchInfo)
        _module(
            "sglang.srt.utils",
            cached_triton_kernel=lambda _=None: lambda kernel: kernel,
            get_device_name=lambda: (
                torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
            ),
        )
        _module("sglang.srt.environ", envs=_SglangSettings())
        base = "sglang.kernels.ops.lora"
        _packages(
            home, "sglang.kernels", "sglang.kernels.ops", base, f"{base}.dense", f"{base}.common"
        )
        _module(f"{base}.moe")
        _module(f"{base}.moe.virtual_experts", _align_block_size_jit=None)
        try:
            importlib.import_module("msgspec")
        except ModuleNotFoundError:
            _module("msgspec", Struct=_Struct)

        def load(name: str) -> Any:
            return importlib.import_module(f"{base}.{name}")

        return types.SimpleNamespace(
            sgemm_a=load("dense.sgemm_lora_a").sgemm_lora_a_fwd,
            sgemm_b=load("dense.sgemm_lora_b").sgemm_lora_b_fwd,
            stacked_b=load("dense.qkv_lora_b").qkv_lora_b_fwd,
            chunked_a=load("dense.chunked_sgmv_shrink").chunked_sgmv_lora_shrink_forward,
            chunked_b=load("dense.chunked_sgmv_expand").chunked_sgmv_lora_expand_forward,
            v2_a=load("common.lora_a"),
            v2_b=load("common.lora_b"),
            v2_route=load("common.route_view"),
            v2_plans=home / "sglang/srt/lora/dense/configs/sm90.plans.json",
        )
