"""The backbone: a Hugging Face causal LM that runs packed rows.

Architecture, weights, tokenizer and chat template come from transformers; attention goes through
`aril.worker.engine.attention`, so decoders beyond Llama work as long as they support the attention
interface. What would be wrong in a mixed batch is refused at load, in one line.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from aril.worker.adapters.base_names import folder_name
from aril.worker.adapters.own_weights import OwnWeights
from aril.worker.adapters.target_parameters import ParameterShapes
from aril.worker.engine.attention import IMPLEMENTATION, UnsupportedModelError
from aril.worker.engine.checkpoint import read_config, read_model, read_tokenizer
from aril.worker.engine.device import use_device
from aril.worker.engine.expert_modules import parameter_shapes
from aril.worker.engine.forward_pass import AttentionContext, AttentionLayout, attending
from aril.worker.engine.layouts import META, record_layouts
from aril.worker.engine.own_products import lead_places, lead_products
from aril.worker.engine.row_kernels import lead_rows
from aril.worker.engine.row_rope import rope_by_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aril.worker.engine.rope_lengths import RowRope

_LAYER_TYPES = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """A loaded model with what the engine must know about it."""

    model: Any  # transformers' PreTrainedModel, in eval mode, under our attention
    tokenizer: Any  # transformers' PreTrainedTokenizerBase
    layouts: tuple[AttentionLayout, ...]  # one per attention layer
    linear_shapes: dict[str, tuple[int, int]]  # module path -> (out, in) of every nn.Linear
    output_module: str  # module path of the linear that makes the logits
    vocab_size: int  # width of the logits; the tokenizer may know fewer tokens
    eos_token_ids: frozenset[int]
    max_positions: int | None  # None: the configuration sets no bound
    rope: RowRope  # how its frequencies change with a sequence's length
    name: str
    dtype: torch.dtype
    device: torch.device
    parameters: ParameterShapes = field(default_factory=ParameterShapes)  # experts and routers
    own_weights: OwnWeights | None = None  # as the folder has them; None: there is no folder

    @torch.inference_mode()
    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        logits_index: Tensor,
        attention: AttentionContext,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Run packed tokens and return the logits [n, vocab] of the positions asked for.

        `input_ids` and `position_ids` are [T] int64, rows one after the other; `logits_index` [n]
        int64 names places in T; `attention` is the context of this step (see PagedAttention).
        `lengths` [T] int64 are those that each token's frequencies go by, where `rope` has any.
        """
        with attending(attention, position_ids, lengths):
            return self.model(
                input_ids=input_ids[None],
                position_ids=position_ids[None],
                use_cache=False,
                logits_to_keep=logits_index,
            ).logits[0]

    @torch.inference_mode()
    def plain_forward(self, input_ids: Tensor) -> Tensor:
        """Logits [T, vocab] of one sequence [T] by transformers' own attention, no cache."""
        with _own_attention(self.model, self.layouts):
            return self.model(input_ids=input_ids[None], use_cache=False).logits[0]


def load_backbone(
    path: Path | str, device: str, dtype: torch.dtype, *, name: str | None = None
) -> Backbone:
    """Load model and tokenizer from a folder (safetensors only) and learn its attention layout.

    `name` is what the backbone is called, by default `folder_name`. On the device "meta" weights
    are not read and all else is as on any other. Raises UnsupportedModelError with one line for a
    folder that is not whole, and for models whose rows cannot be packed: recurrent layers,
    attention features we don't have.
    """
    use_device(torch.device(device))
    config = read_config(path)
    _refuse_layers(config.get_text_config())
    model = read_model(path, config, dtype, weights=device != META)
    tokenizer = read_tokenizer(path)
    own = OwnWeights.of(Path(path), model)
    backbone = adopt_backbone(model, tokenizer, device, name=name or folder_name(path))
    return replace(backbone, own_weights=own)


def adopt_backbone(model: Any, tokenizer: Any, device: str, *, name: str) -> Backbone:
    """Take over a transformers model that is in memory already; as `load_backbone` otherwise."""
    config = model.config.get_text_config()
    _refuse_layers(config)
    model.eval().requires_grad_(requires_grad=False)
    use_plain_linears(model)
    _refuse_model(model)
    _read_no_ids(model)
    _use_attention(model, IMPLEMENTATION)
    lead_places(model)
    model.to(device)
    lead_rows(model)
    rope = rope_by_row(model)
    if not tokenizer.is_fast:
        kind = model.config.model_type
        raise UnsupportedModelError(f"{kind}: there is no tokenizer.json to stream by")
    output = model.get_output_embeddings()
    return Backbone(
        model=model,
        tokenizer=tokenizer,
        layouts=record_layouts(model, config),
        linear_shapes=linear_shapes(model),
        output_module=next(path for path, module in model.named_modules() if module is output),
        vocab_size=output.weight.shape[0],
        eos_token_ids=_eos_token_ids(model, tokenizer),
        max_positions=rope.longest or getattr(config, "max_position_embeddings", None),
        rope=rope,
        name=name,
        dtype=model.dtype,
        device=torch.device(device),
        parameters=parameter_shapes(model),
    )


def use_plain_linears(model: Any) -> None:
    """Turn GPT-2's `Conv1D`, which keeps its weight as [in, out], into the linear that it is.

    So is Falcon's own class, which adds its bias in a step of its own.
    """
    for path, module in list(model.named_modules()):
        if type(module) is Conv1D:
            weight = module.weight.data.T.contiguous()
        elif type(module).__name__ == "FalconLinear":
            weight = module.weight.data
        else:
            continue
        columns, rows = weight.shape
        plain = nn.Linear(rows, columns, bias=module.bias is not None, device="meta")
        plain.weight = nn.Parameter(weight, requires_grad=False)
        if module.bias is not None:
            plain.bias = nn.Parameter(module.bias.data, requires_grad=False)
        model.set_submodule(path, plain)


def linear_shapes(model: Any) -> dict[str, tuple[int, int]]:
    """Return (out, in) of every linear by path; `use_plain_linears` comes first."""
    return {
        path: (module.out_features, module.in_features)
        for path, module in model.named_modules()
        if type(module) is nn.Linear
    }


def _refuse_layers(config: Any) -> None:
    """Refuse by configuration, before gigabytes of weights are read."""
    unknown = set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES
    if unknown:
        raise UnsupportedModelError(
            f"{config.model_type}: layers of type {', '.join(sorted(unknown))} cannot run on "
            "packed rows"
        )


def _refuse_model(model: Any) -> None:
    kind = model.config.model_type
    if model._is_stateful:  # noqa: SLF001  # how transformers itself marks recurrent models
        raise UnsupportedModelError(f"{kind}: recurrent layers cannot run on packed rows")
    if not model._can_set_attn_implementation():  # noqa: SLF001  # same, for the interface
        lead_products(model)
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise UnsupportedModelError(f"{kind}: it cannot make the logits of chosen positions only")
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    if not any("position_ids" in inspect.signature(part.forward).parameters for part in parts):
        raise UnsupportedModelError(f"{kind}: it counts positions itself, over all rows of a step")


def _read_no_ids(model: Any) -> None:
    """Leave out a look for padding that some models take at each step's ids, to warn.

    Packed rows have none; on a GPU it waits for the device, and on "meta" there is nothing to read.
    """
    for module in model.modules():
        if hasattr(module, "warn_if_padding_and_no_attention_mask"):
            module.warn_if_padding_and_no_attention_mask = lambda *_: None


def _eos_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return what ends an answer by anybody's word.

    A chat model's configuration often keeps the base model's token, where turns end in another.
    """
    found: set[int] = set()
    for source in (model.generation_config, model.config.get_text_config(), tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found.update(ids if isinstance(ids, list | tuple) else () if ids is None else (ids,))
    return frozenset(found)


@contextmanager
def _own_attention(model: Any, layouts: Sequence[AttentionLayout]) -> Iterator[None]:
    """Run with an attention of transformers that has all that the layers ask for.

    Where scores are capped that is eager only: older versions call Gemma 2 fit for the other, which
    leaves the cap out without a word.
    """
    plain = all(each.softcap is None and each.sinks is None for each in layouts)
    sdpa = plain and model._supports_sdpa  # noqa: SLF001  # no public getter
    _use_attention(model, "sdpa" if sdpa else "eager")
    try:
        yield
    finally:
        _use_attention(model, IMPLEMENTATION)


def _use_attention(model: Any, implementation: str) -> None:
    if model._can_set_attn_implementation():  # noqa: SLF001  # as above
        model.set_attn_implementation(implementation)
    else:  # transformers would only warn; masks are made, or not, by this name
        model.config._attn_implementation = implementation  # noqa: SLF001  # no public setter
