"""RoPE whose frequencies change with a sequence's length, by each row's own length.

transformers chooses them by the largest position of a call: in a step that is anybody's, and of a
prompt in pieces that piece's. A row has here the frequencies of its whole sequence, as transformers
computes them for it alone at once.

longrope (Phi-3, Phi-4): one set of frequencies up to a length, another beyond it, for all tokens.
So a sequence that grows beyond it is computed anew, as Phi-3's own `generate` does it.
dynamic: changes beyond `max_position_embeddings` only, which no sequence passes here.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from worker.engine.attention import UnsupportedModelError
from worker.engine.forward_pass import lead, under_way

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def rope_by_row(model: Any) -> int | None:
    """Have a model's rotary embeddings go by rows; return the length up to which longrope is short.

    None where frequencies never change. Raises UnsupportedModelError where they do at several.
    """
    switches: set[int] = set()
    for module in model.modules():
        found = getattr(module, "rope_type", None)
        kinds = found if isinstance(found, dict) else {None: found}
        long = {part for part, kind in kinds.items() if kind == "longrope"}
        if long:
            switches |= {_short_length(module.config, part) for part in long}
            switch = _short_length(module.config, next(iter(long)))
            lead(module, "forward", _by_length(module.forward, long, switch))
        elif any(isinstance(kind, str) and "dynamic" in kind for kind in kinds.values()):
            lead(module, "forward", inspect.unwrap(type(module).forward).__get__(module))
    if len(switches) > 1:
        raise UnsupportedModelError(
            f"{model.config.model_type}: RoPE of type 'longrope' changes at several lengths"
        )
    return next(iter(switches), None)


def _short_length(config: Any, part: str | None) -> int:
    parameters = config.rope_parameters if part is None else config.rope_parameters[part]
    return int(parameters["original_max_position_embeddings"])


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
