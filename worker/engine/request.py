"""What goes into an engine and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aril.schemas import FinishReason, JobError, PromptLogprobs, Sampling, TokenLogprobs

if TYPE_CHECKING:
    from aril.worker.adapters import AdapterWeights
    from aril.worker.constraints.compiler import CompiledConstraint
    from aril.worker.engine.mixture import Mixture

__all__ = ["FinishReason", "GenerationRequest", "Output", "TokenLogprobs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One answer to generate.

    `key` is the caller's name for it, unique among the engine's unfinished requests.
    What the adapter adds is multiplied by `adapter_scale`, what each of a mixture adds by its
    weight too. It works from the prompt's token `active_from` on (aLoRA), what is before is the
    bare backbone's. `resume_ids` are tokens of the answer that are already visible: they are taken
    as forced prompt, and generation goes on behind them as if this engine had sampled them itself.
    `continues_text` says that the answer goes on in the prompt's text, and is no turn of its own:
    its first space, if it begins with one, is then the answer's. Requests of one `salt` find each
    other's beginnings in the cache, others never.
    """

    key: int
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seed: int
    adapter: AdapterWeights | Mixture | None
    adapter_scale: float = 1.0
    active_from: int = 0
    resume_ids: tuple[int, ...] = ()
    constraint: CompiledConstraint | None = None  # of `sampling.constraint`
    continues_text: bool = False
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """What one step brought for one request, one token of it at most.

    `text` is what became safe to show with `ids`: whole characters, no part of a possible stop
    string; with `finish` it is all the remaining text. `logprobs` has one entry an id;
    `prompt_logprobs` come with `finish`, for who asked. After
    `finish` or `error` nothing follows for this key.
    """

    key: int
    ids: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[TokenLogprobs, ...] | None = None
    finish: FinishReason | None = None
    prompt_logprobs: PromptLogprobs | None = None
    error: JobError | None = None

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.finish is not None or self.error is not None
