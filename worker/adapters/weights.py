"""An adapter in host memory: what its reader gives and the engine takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from torch import Tensor

from aril.worker.adapters.chat_template import ChatTemplate
from aril.worker.adapters.invocation import find_last
from aril.worker.adapters.trained_tokens import TrainedTokens


class Remark(StrEnum):
    """What an operator should know of an adapter that is served; its value is the log's event."""

    TEMPLATE_NOT_USED = "adapter_template_not_used"
    TOKENS_ADDED = "adapter_tokens_added"

    @property
    def text(self) -> str:
        """One line for people."""
        if self is Remark.TEMPLATE_NOT_USED:
            return (
                "its chat template is not the backbone's, which renders its messages all the same"
                " (ARIL_ADAPTER_TEMPLATES)"
            )
        return "it has added tokens, which are found in prompts and left out of the text of answers"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LoraModule:
    """The adapter of one linear layer: y += scaling · (x Aᵀ) Bᵀ (LoRA, arXiv 2106.09685).

    With a magnitude m, each row of the changed weight is scaled to that length (DoRA, arXiv
    2402.09353): the layer's weight is m ⊙ (W + scaling · B A) / ‖W + scaling · B A‖ row by row.
    """

    rank: int
    scaling: float
    a: Tensor
    """[rank, in features], in the dtype of the file."""
    b: Tensor
    """[out features, rank]."""
    magnitude: Tensor | None = None
    """[out features]; None for plain LoRA."""
    bias: Tensor | None = None
    """[out features]: added to y as it is, beside what A and B give; None for none."""
    scaled_bias: Tensor | None = None
    """[out features]: the part of `bias` that the adapter's strength scales, B's own."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, and with a magnitude of the fp32 gains that are kept beside it."""
        size = self.a.nbytes + self.b.nbytes
        size += sum(each.nbytes for each in (self.bias, self.scaled_bias) if each is not None)
        if self.magnitude is None:
            return size
        return size + self.magnitude.nbytes + 4 * self.magnitude.numel()


@dataclass(frozen=True, slots=True, eq=False)
class ExpertsModule:
    """The adapter of all experts' weights at one place: expert e adds scaling · (x A[e]ᵀ) B[e]ᵀ."""

    rank: int
    """Of one expert."""
    scaling: float
    a: Tensor
    """[experts, rank, in features], in the dtype of the file; any strides."""
    b: Tensor
    """[experts, out features, rank], likewise."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return self.a.nbytes + self.b.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class AdapterWeights:
    """An adapter on the host, ready for any device slot."""

    name: str
    digest: str
    """SHA-256 of configuration, tensors and tokenizer files, hexadecimal."""
    rank: int
    """The largest rank of any module, or of any one expert."""
    modules: Mapping[str, LoraModule]
    """By the module's path in the backbone, e.g. `model.layers.0.self_attn.q_proj`."""
    experts: Mapping[str, ExpertsModule] = field(default_factory=dict)
    """By the parameter's path, e.g. `model.layers.0.mlp.experts.gate_up_proj`."""
    tokens: TrainedTokens | None = None
    """Vectors of some tokens, in place of the backbone's."""
    invocation: tuple[int, ...] = ()
    """Tokens from whose last occurrence in the prompt on it works (aLoRA); () for everywhere."""
    warning: str | None = None
    """Why it may not be meant for this backbone, though it fits."""
    template: ChatTemplate | None = None
    """What its messages are rendered by; None: by the backbone's."""
    added_tokens: Mapping[str, int] = field(default_factory=dict)
    """Tokens with their ids that the backbone's tokenizer does not know."""
    remarks: tuple[Remark, ...] = ()
    owner: str = ""
    """Whose folder of the store it was found in: a tenant, or `shared`."""

    @property
    def dora(self) -> bool:
        """Whether it has learnt lengths beside directions."""
        return any(module.magnitude is not None for module in self.modules.values())

    def active_from(self, prompt_ids: Sequence[int]) -> int | None:
        """Return the prompt's token from which on it works; None: it does not work at all."""
        return find_last(prompt_ids, self.invocation) if self.invocation else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        tokens = 0 if self.tokens is None else self.tokens.nbytes
        experts = sum(module.nbytes for module in self.experts.values())
        tokens += 0 if self.template is None else self.template.nbytes
        return tokens + experts + sum(module.nbytes for module in self.modules.values())
