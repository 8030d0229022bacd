"""From settings to a loaded engine with its tokenizer and adapter store. Slow; run in a thread."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aril.worker.engine.threads import bound_spinning, use_threads
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from aril.worker.batching.asked_adapters import AdapterSource
    from aril.worker.batching.preparation import PromptEncoder, Renderer
    from aril.worker.constraints.cache import Compiler
    from aril.worker.engine.runner import StepEngine
    from aril.worker.observe.engine_stats import EngineStats
    from aril.worker.settings import WorkerSettings

log = get_logger(__name__)


class ModelError(Exception):
    """The backbone cannot be served; the message is one line."""


class RoomError(ModelError):
    """A setting asks for more memory than there is."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What answers jobs."""

    engine: StepEngine
    prompts: PromptEncoder
    adapters: AdapterSource | None
    base: str  # the backbone's name
    base_digest: str | None = None  # of the backbone's weights
    dtype: str | None = None  # of its numbers
    constraints: Compiler | None = None
    templates: Renderer | None = None  # for adapters' own templates, where they are used
    stats: Callable[[], EngineStats] | None = None  # callable from any thread
    kv_tokens: int | None = None  # that the engine's cache holds; None: it has none
    take_loads: Callable[[str], int] = lambda _: 0  # adapters read for a tenant since it was asked


def load_model(settings: WorkerSettings) -> Loaded:
    """Load the backbone that the settings name. Raises ModelError."""
    # Weights come from a folder that an operator chose, never from a hub at run time.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    bound_spinning()

    from aril.worker.adapters import AdapterCache, AdapterStore  # noqa: PLC0415 - imports torch
    from aril.worker.adapters.tokenizer_files import BackboneTokenizer  # noqa: PLC0415 - same
    from aril.worker.batching.prompts import Prompts  # noqa: PLC0415 - same
    from aril.worker.batching.templates import TemplateRenderer  # noqa: PLC0415 - same
    from aril.worker.constraints.compiler import ConstraintCompiler  # noqa: PLC0415 - same
    from aril.worker.constraints.vocabulary import Vocabulary  # noqa: PLC0415 - same
    from aril.worker.engine.attention import UnsupportedModelError  # noqa: PLC0415 - same
    from aril.worker.engine.config import EngineConfig  # noqa: PLC0415 - same
    from aril.worker.engine.engine import Engine  # noqa: PLC0415 - same
    from aril.worker.engine.kv_room import KvRoomError  # noqa: PLC0415 - same
    from aril.worker.engine.model import load_backbone  # noqa: PLC0415 - same
    from aril.worker.engine.weights_digest import weights_digest  # noqa: PLC0415 - same

    path = Path(settings.model)
    if not settings.model or not (path / "config.json").is_file():
        raise ModelError(f"model: {settings.model or '(not set)'} is no model folder: ARIL_MODEL")
    if settings.adapters is not None and not settings.adapters.is_dir():
        raise ModelError(f"adapters: {settings.adapters} is no folder: ARIL_ADAPTERS")
    threads = use_threads(settings.threads)
    device, dtype = device_and_type(settings)
    try:
        backbone = load_backbone(path, device, dtype, name=settings.base)
        base_digest = weights_digest(path, dtype, settings.weights)
        engine = Engine(
            backbone,
            EngineConfig(
                max_rows=settings.max_rows,
                max_step_tokens=settings.max_step_tokens,
                step_stretch=settings.step_stretch,
                slots=settings.slots,
                max_rank=settings.max_rank,
                kv_tokens=0 if settings.kv_tokens == "auto" else settings.kv_tokens,
                device=device,
                dtype=dtype,
                weights=settings.weights,
                invariant=settings.invariant,
                graphs=settings.cuda_graphs,
                run_ahead=settings.run_ahead,
                prefix_cache=settings.prefix_cache,
                speculation=settings.most_guessed(device),
            ),
        )
        _compile_kernels(device, dtype)
    except KvRoomError as error:
        raise RoomError(str(error)) from error
    except UnsupportedModelError as error:
        raise ModelError(f"model: {error}") from error
    except (OSError, ValueError, MemoryError, RuntimeError) as error:  # of memory, most of all
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"model: {path}: {first_line}") from error
    prompts = Prompts(
        backbone.tokenizer,
        vocab_size=backbone.vocab_size,
        context=engine.context,
        max_prompt_tokens=settings.max_prompt_tokens,
        max_new_tokens=settings.max_new_tokens,
    )
    adapters = None
    if settings.adapters is not None:
        store = AdapterStore(
            settings.adapters,
            base_model=backbone.name,
            linear_shapes=engine.layers.shapes,
            max_rank=settings.max_rank,
            base_check=settings.base_check,
            own=backbone.own_weights,
            parameters=engine.layers.parameters,
            max_expert_values=settings.expert_bytes // _slot_value_bytes(dtype, device),
            tokenizer=BackboneTokenizer(backbone.tokenizer, path),
            templates=settings.adapter_templates,
        )
        adapters = AdapterCache(store, settings.adapter_cache_bytes, prepare=engine.prepare)
    _return_freed_memory()
    named = str(dtype).removeprefix("torch.")
    kv_tokens = engine.config.kv_blocks * engine.config.kv_block
    log.info(
        "engine_ready",
        dtype=named,
        weights=settings.weights,
        linears=len(backbone.linear_shapes),
        adapted=len(engine.layers.shapes),  # of the linears: those that adapters can change
        groups=len(engine.layers.groups),
        slots=engine.config.slots,
        kv_tokens=kv_tokens,
        context=engine.context,
        speculation=engine.config.speculation,
        threads=threads,
        base_digest=base_digest,
    )

    def stats() -> EngineStats:
        if adapters is None:
            return engine.stats()
        return replace(
            engine.stats(),
            adapters_other_base=adapters.other_bases,
            adapters_other_template=adapters.other_templates,
            adapter_cache_hits=adapters.hits,
            adapter_cache_bytes=adapters.nbytes,
            adapter_load_seconds=adapters.load_seconds,
            in_memory=adapters.digests,
        )

    vocabulary = Vocabulary.of(backbone.tokenizer, backbone.vocab_size, backbone.eos_token_ids)
    templates = TemplateRenderer(prompts.reserved) if settings.adapter_templates else None
    return Loaded(
        engine=engine,
        prompts=prompts,
        adapters=adapters,
        templates=templates,
        constraints=ConstraintCompiler(vocabulary),
        base=backbone.name,
        base_digest=base_digest,
        dtype=named,
        stats=stats,
        kv_tokens=kv_tokens,
        take_loads=(lambda _: 0) if adapters is None else adapters.take_loads,
    )


def _return_freed_memory() -> None:
    """Give the system what loading has freed: 130 MB with SmolLM2-135M, for as long as we run.

    Weights are converted and laid out anew while they load; glibc keeps the holes for itself.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # musl has none
        trim(0)


def slot_value_bytes(settings: WorkerSettings) -> int:
    """Return what one value of an adapter would take in its slot, on this machine."""
    import torch  # noqa: PLC0415 - see load_model

    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = automatic if settings.device == "auto" else settings.device
    return _slot_value_bytes(_dtype(settings, device), device)


def device_and_type(settings: WorkerSettings) -> tuple[str, torch.dtype]:
    """Return where a model is computed on this machine, and in which type. Raises ModelError."""
    device = _device(settings)
    return device, _dtype(settings, device)


def _compile_kernels(device: str, dtype: torch.dtype) -> None:
    """Make the machine code that jobs may need before there are any: see `compile_kernels`."""
    import torch  # noqa: PLC0415 - see load_model

    from aril.kernels.backend import uses_native  # noqa: PLC0415 - same

    if uses_native("auto", torch.device(device), dtype):
        from aril.kernels.native import compile_kernels  # noqa: PLC0415 - loads Numba

        compile_kernels(dtype)


def _slot_value_bytes(dtype: torch.dtype, device: str) -> int:
    import torch  # noqa: PLC0415 - see load_model

    from aril.kernels.sgmv import slot_type  # noqa: PLC0415 - imports torch

    # As if torch multiplied: tiles fill columns up, for which the half type leaves room.
    return slot_type(dtype, torch.device(device), "torch").itemsize


def _device(settings: WorkerSettings) -> str:
    import torch  # noqa: PLC0415 - see load_model

    if settings.device != "auto":
        if settings.device.startswith("cuda") and not torch.cuda.is_available():
            raise ModelError(f"device: {settings.device} was asked for, torch finds no GPU")
        number = torch.device(settings.device).index or 0
        if settings.device.startswith("cuda") and number >= (found := torch.cuda.device_count()):
            raise ModelError(f"device: {settings.device} was asked for, torch finds {found} GPUs")
        return settings.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(settings: WorkerSettings, device: str) -> torch.dtype:
    import torch  # noqa: PLC0415 - see load_model

    from aril.worker.engine.processor import cpu_dtype  # noqa: PLC0415 - imports torch

    if settings.dtype == "auto":
        return torch.bfloat16 if device.startswith("cuda") else cpu_dtype()
    found: torch.dtype = getattr(torch, settings.dtype)
    return found
