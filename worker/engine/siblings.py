"""Which of a model's linears read the same input: found by watching one forward, not by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aril.worker.engine.attention import LayoutRecorder
from aril.worker.engine.forward_pass import attending

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aril.worker.engine.model import Backbone

_PROBE_TOKENS = 7
_PROBE_LOGITS = 2  # fewer than the tokens, so that a linear's rows tell which of the two it sees


@dataclass(frozen=True, slots=True)
class _Call:
    rows: int
    input: Tensor  # kept alive, so that its identity is not given to another tensor
    version: int


def find_siblings(backbone: Backbone) -> tuple[tuple[str, ...], ...]:
    """Names of the linears that one forward pass feeds with the same tensor, group by group.

    Linears that are not called exactly once on all rows (mixtures of experts) are left out: rows
    of a step could not be matched to their adapters there. The output module sees only the rows
    that are sampled from and is a group of its own.
    """
    calls = _watch(backbone, backbone.linear_shapes)
    groups: dict[tuple[int, int], list[str]] = {}
    for name, made in calls.items():
        rows = _PROBE_LOGITS if name == backbone.output_module else _PROBE_TOKENS
        if len(made) == 1 and made[0].rows == rows:
            groups.setdefault((id(made[0].input), made[0].version), []).append(name)
    return tuple(tuple(names) for names in groups.values())


def find_whole(backbone: Backbone, modules: Iterable[str]) -> tuple[str, ...]:
    """Return those of the modules that one forward pass calls exactly once, with all rows."""
    return tuple(
        name
        for name, made in _watch(backbone, modules).items()
        if len(made) == 1 and made[0].rows == _PROBE_TOKENS
    )


def _watch(backbone: Backbone, modules: Iterable[str]) -> dict[str, list[_Call]]:
    """Run one forward pass and note what the modules are given."""
    calls: dict[str, list[_Call]] = {}

    def record(name: str, x: Tensor) -> None:
        rows = x.numel() // x.shape[-1]
        calls.setdefault(name, []).append(_Call(rows, x, x._version))  # noqa: SLF001  # torch has no public name for it

    handles = [
        backbone.model.get_submodule(name).register_forward_pre_hook(
            lambda _module, args, named, name=name: record(
                name, *args[:1] or [*named.values()][:1]
            ),
            with_kwargs=True,
        )
        for name in modules
    ]
    ids = torch.arange(_PROBE_TOKENS, device=backbone.device)[None] % backbone.vocab_size
    kept = torch.arange(_PROBE_TOKENS - _PROBE_LOGITS, _PROBE_TOKENS, device=backbone.device)
    try:
        # Inference mode keeps no versions, which show changes in place.
        with torch.no_grad(), attending(LayoutRecorder()):
            backbone.model(input_ids=ids, use_cache=False, logits_to_keep=kept)
    finally:
        for handle in handles:
            handle.remove()
    return calls
