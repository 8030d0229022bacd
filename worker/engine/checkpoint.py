"""A model folder's weights, by transformers, and refused where they are not all of the model's.

Where a checkpoint lacks a tensor transformers makes one up, with random numbers, and says so in its
log: two workers would serve two models. So its report is read, and what it reports ends the start.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import torch

log = get_logger(__name__)

_CONVERSION = "CONVERSION"  # a word of transformers' advice to look at its report
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_NO_WEIGHTS = frozenset({"masked_bias"})  # a constant that older versions saved
_NUMBERED = re.compile(r"(.+)\.\d+\.")  # the path of a list of layers, in that of one's tensor


def read_config(path: Path | str) -> Any:
    """Read a folder's config.json. Raises UnsupportedModelError, also for quantised weights."""
    with _one_line("config.json"):
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    quantised = getattr(config, "quantization_config", None)
    if quantised:
        found = quantised if isinstance(quantised, dict) else vars(quantised)
        method = str(found.get("quant_method", "unknown")).rpartition(".")[2].lower()
        raise UnsupportedModelError(
            f"{config.model_type}: weights are quantised ({method}); float ones are served"
        )
    return config


def read_model(path: Path | str, config: Any, dtype: torch.dtype, *, weights: bool = True) -> Any:
    """Read the model of a folder (safetensors only).

    Without ``weights`` it lies on the meta device and only the files' tables of tensors are read;
    what is refused is the same. Raises UnsupportedModelError with one line: a file that is cut or
    missing, tensors that the checkpoint lacks, that have another shape, or that the model has no
    place for.
    """
    _refuse_numbers(Path(path))
    where = {} if weights else {"device_map": "meta"}
    with _quiet(), _one_line("weights"):
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are in the report, by name and with their shapes
            output_loading_info=True,
            **where,
        )
    kind = config.model_type
    if others := report["mismatched_keys"]:
        name, stored, wanted = min(others)
        raise UnsupportedModelError(
            f"{kind}: {name} has shape {list(stored)}, the configuration asks for {list(wanted)}"
            f"{_more(others)}"
        )
    unused = report["unexpected_keys"]
    if missing := report["missing_keys"]:
        instead = f"; {min(unused)} has no place{_more(unused)}" if unused else ""
        raise UnsupportedModelError(
            f"{kind}: the checkpoint lacks {min(missing)}{_more(missing)}{instead}"
        )
    if wrong := [name for name in unused if _changes_answers(model, name)]:
        raise UnsupportedModelError(
            f"{kind}: the checkpoint has {min(wrong)}, for which the configuration has no place"
            f"{_more(wrong)}"
        )
    if problems := report["error_msgs"]:
        raise UnsupportedModelError(f"{kind}: {_first_line(problems[0])}")
    if unused and weights:
        log.info("weights_not_used", count=len(unused), first=min(unused))
    return model


def read_tokenizer(path: Path | str) -> Any:
    """Read a folder's tokenizer. Raises UnsupportedModelError."""
    with _quiet(), _one_line("tokenizer"):
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def _refuse_numbers(path: Path) -> None:
    """Refuse weights that are no floats of a common kind: they would be taken for plain numbers."""
    for file in sorted(path.glob("*.safetensors")):
        with _one_line("weights"), safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                kind = tensors.get_slice(name).get_dtype()
                if name.endswith(".weight") and kind not in _FLOATS:
                    raise UnsupportedModelError(f"weights: {name} has numbers of type {kind}")


def _changes_answers(model: nn.Module, name: str) -> bool:
    """Whether a tensor that was not used belongs to a part of this model, or to a layer too many.

    A scale or a bias beside a weight that is used would be left out without a word. What stands
    apart is not run: a vision tower, a head that drafts tokens, tables that are computed anew.
    """
    modules = dict(model.named_modules())
    parent, _, leaf = name.rpartition(".")
    if (owner := modules.get(parent)) is not None:
        return leaf not in {*dict(owner.named_buffers(recurse=False)), *_NO_WEIGHTS}
    while parent:  # a part below one that holds weights itself, as PEFT's wrappers make
        parent = parent.rpartition(".")[0]
        if (owner := modules.get(parent)) is not None and parent:
            break
    if owner is not None and next(owner.parameters(recurse=False), None) is not None:
        return True
    numbered = _NUMBERED.match(name)
    return numbered is not None and isinstance(modules.get(numbered[1]), nn.ModuleList)


def _more(names: Collection[object]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""


def _first_line(error: object) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn whatever transformers and its readers raise for a folder into one line."""
    try:
        yield
    except UnsupportedModelError:
        raise
    except RuntimeError as error:
        if _CONVERSION not in str(error):
            raise UnsupportedModelError(f"{what}: {_first_line(error)}") from error
        told = "tensors that the model joins into one are missing, or have other shapes"
        raise UnsupportedModelError(f"{what}: {told}") from error
    except Exception as error:
        raise UnsupportedModelError(f"{what}: {_first_line(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Show neither bars nor the report, which is read."""
    shown, level = (
        transformers_logging.is_progress_bar_enabled(),
        transformers_logging.get_verbosity(),
    )
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()
