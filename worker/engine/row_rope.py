"""RoPE whose frequencies change with a sequence's length, by each row's own length.

transformers chooses them by the largest position of a call: in a step that is anybody's, and of a
prompt in pieces that piece's. A token has here those of its own sequence.

longrope (Phi-3, Phi-4): one set of frequencies up to a length, another beyond it, for all tokens.
So a sequence that grows beyond it is computed anew, as Phi-3's own `generate` does it.
dynamic: beyond a length each further token has others. The prompt's tokens have those of its
length and each token of the answer those of the length with it, as in `generate` with its cache.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.forward_pass import lead, under_way
from aril.worker.engine.rope_lengths import RowRope

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def rope_by_row(model: Any) -> RowRope:
    """Have a model's rotary embeddings go by rows.

    Raises UnsupportedModelError where their frequencies change in more than one way.
    """
    found: set[RowRope] = set()
    for module in model.modules():
        types = getattr(module, "rope_type", None)
        kinds = types if isinstance(types, dict) else {None: types}
        changing = {part for part, kind in kinds.items() if kind == "longrope" or _grows(kind)}
        for part in changing:
            parameters = module.config.rope_parameters
            parameters = parameters if part is None else parameters[part]
            if not _grows(kinds[part]):
                switch = int(parameters["original_max_position_embeddings"])
                found.add(RowRope(switch=switch))
                lead(module, "forward", _by_length(module.forward, changing, switch))
            elif part is None:
                first = int(module.config.max_position_embeddings)
                longest = int(first * (parameters.get("factor") or 1))
                found.add(RowRope(grows=True, first=first, longest=longest))
                lead(module, "forward", _growing(module, first))
            else:
                found |= {RowRope(), RowRope(grows=True)}
    if len(found) > 1:
        raise UnsupportedModelError(
            f"{model.config.model_type}: frequencies of RoPE change in more ways than one"
        )
    return next(iter(found), RowRope())


def _grows(kind: object) -> bool:
    return isinstance(kind, str) and "dynamic" in kind


def _by_length(own: Callable[..., Any], long: set[Any], switch: int) -> Callable[..., Any]:
    """Compute both sets and take each token's, told from the length of its sequence."""

    def forward(x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> Any:
        kind = () if layer_type is None else (layer_type,)
        step = under_way()
        if step is None or step.lengths is None or layer_type not in long:
            return own(x, position_ids, *kind)
        # The call's largest position decides: none beyond the switch, and one more that is.
        short = own(x, position_ids.clamp(max=switch - 1), *kind)
        beyond = torch.cat([position_ids, position_ids.new_full((1, 1), switch)], 1)
        longer = own(x, beyond, *kind)
        is_long = (step.lengths > switch)[None, :, None]
        if isinstance(short, tuple):
            pairs = zip(short, longer, strict=True)
            return tuple(torch.where(is_long, b[:, :-1], a) for a, b in pairs)
        return torch.where(is_long, longer[:, :-1], short)

    return forward


def _growing(module: Any, first: int) -> Callable[..., Any]:
    """Compute the tokens of each length apart; up to the first length they are all alike."""
    own, plain = module.forward, inspect.unwrap(type(module).forward).__get__(module)
    original = module.inv_freq.clone()

    def of_length(x: Tensor, position_ids: Tensor, length: int) -> tuple[Tensor, ...]:
        module.inv_freq, module.max_seq_len_cached = original.to(x.device), first
        if length <= first:
            return tuple(plain(x, position_ids))
        beyond = torch.cat([position_ids, position_ids.new_full((1, 1), length - 1)], 1)
        return tuple(part[:, :-1] for part in own(x, beyond))

    def forward(x: Tensor, position_ids: Tensor) -> tuple[Tensor, ...]:
        step = under_way()
        if step is None or step.lengths is None:
            return of_length(x, position_ids, position_ids.shape[1])
        lengths = step.lengths.clamp(min=first)
        whole: tuple[Tensor, ...] = ()
        for length in lengths.unique().tolist():
            own_places = (lengths == length).nonzero()[:, 0]
            parts = of_length(x, position_ids[:, own_places], length)
            whole = whole or tuple(
                part.new_empty(1, len(lengths), *part.shape[2:]) for part in parts
            )
            for into, part in zip(whole, parts, strict=True):
                into[:, own_places] = part
        return whole

    return forward
