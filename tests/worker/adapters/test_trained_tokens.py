"""`trainable_token_indices` and tables saved whole: what is read, and what is refused by name."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from aril.schemas import ErrorCode, JobError
from aril.worker.adapters import AdapterStore, AdapterWeights
from aril.worker.adapters.own_weights import OwnWeights
from aril.worker.adapters.trained_tokens import MAX_TOKENS, TokenTables
from tests.support.adapter_folders import SHAPES, tensors, write_adapter

PREFIX = "base_model.model."
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
VOCAB = 2_000


def vectors(module: str = EMBEDDING) -> str:
    """Return PEFT's name of a table's trained vectors."""
    return f"{PREFIX}{module}.token_adapter.trainable_tokens_delta"


def load(
    tmp_path: Path, more: dict[str, Tensor], *, tied: bool = True, **fields: Any
) -> AdapterWeights:
    """Write an adapter with more tensors, and read it for a backbone of zeros."""
    model = tmp_path / "model"
    model.mkdir(exist_ok=True)
    own = {f"{EMBEDDING}.weight": torch.zeros(VOCAB, 4)}
    own |= {} if tied else {f"{HEAD}.weight": torch.zeros(VOCAB, 4)}
    save_file(own, model / "model.safetensors")
    ties = {f"{HEAD}.weight": f"{EMBEDDING}.weight"} if tied else {}
    tables = TokenTables(EMBEDDING, HEAD, VOCAB, 4, tied=tied)
    store = AdapterStore(
        tmp_path / "store",
        base_model=None,
        linear_shapes=SHAPES | {HEAD: (VOCAB, 4)},
        max_rank=8,
        own=OwnWeights(model, ties, "model.", tables),
    )
    write_adapter(tmp_path / "store/acme/pirate", tensors() | more, **fields)
    return store.load(store.find("acme", "pirate"))


def refusal(tmp_path: Path, more: dict[str, Tensor], **given: Any) -> JobError:
    """Return what its tenant is told."""
    with pytest.raises(JobError) as caught:
        load(tmp_path, more, **given)
    assert caught.value.code is ErrorCode.ADAPTER_INVALID
    return caught.value


def test_a_table_with_more_rows_is_refused_with_both_numbers(tmp_path: Path) -> None:
    """Tokens that a trainer has added past the last: there is nowhere to put their logits."""
    longer = {f"{PREFIX}{EMBEDDING}.weight": torch.rand(VOCAB + 3, 4)}
    error = refusal(tmp_path, longer, modules_to_save=["embed_tokens"])
    assert "more tokens than the backbone has rows for" in error.message
    assert (error.limit, error.given) == (VOCAB, VOCAB + 3)


def test_tokens_of_tied_tables_count_for_both(tmp_path: Path) -> None:
    """One list of vectors serves input and output, and is held once."""
    values = torch.rand(2, 4)
    adapter = load(tmp_path, {vectors(): values}, trainable_token_indices=[7, 3])
    assert adapter.tokens is not None
    assert adapter.tokens.input is adapter.tokens.output
    assert adapter.tokens.input is not None
    assert adapter.tokens.input.ids == (7, 3)
    assert torch.equal(adapter.tokens.input.values, values)
    assert adapter.nbytes - load(tmp_path, {}).nbytes == values.nbytes


def test_tables_that_are_not_tied_have_tokens_of_their_own(tmp_path: Path) -> None:
    """A list is of the embeddings; a table by its name has what is given for it."""
    adapter = load(tmp_path, {vectors(): torch.ones(1, 4)}, tied=False, trainable_token_indices=[7])
    assert adapter.tokens is not None
    assert adapter.tokens.input is not None
    assert adapter.tokens.output is None
    both = {vectors(): torch.ones(1, 4), vectors(HEAD): torch.ones(2, 4)}
    indices = {"embed_tokens": [1], "lm_head": [2, 3]}
    found = load(tmp_path, both, tied=False, trainable_token_indices=indices).tokens
    assert found is not None
    assert found.output is not None
    assert found.output.ids == (2, 3)


@pytest.mark.parametrize(
    ("indices", "more", "told"),
    [
        ([7], {}, "has no vectors"),
        (None, {vectors(): torch.ones(1, 4)}, "trainable_token_indices lacks"),
        ([7, 8], {vectors(): torch.ones(1, 4)}, r"\[1, 4\], not \[2, 4\]"),
        ([VOCAB], {vectors(): torch.ones(1, 4)}, "a token that model.embed_tokens lacks"),
        ([-1], {vectors(): torch.ones(1, 4)}, "a token that model.embed_tokens lacks"),
        ([7, 7], {vectors(): torch.ones(2, 4)}, "not distinct tokens"),
        ([True], {vectors(): torch.ones(1, 4)}, "not distinct tokens"),
        ("7", {vectors(): torch.ones(1, 4)}, "not distinct tokens"),
        ({"embed_tokens": []}, {vectors(): torch.ones(0, 4)}, "not distinct tokens"),
        ({"q_proj": [7]}, {vectors("q_proj"): torch.ones(1, 4)}, "names 'q_proj'"),
        ({"lm_head": [7]}, {vectors(HEAD): torch.ones(1, 4)}, "names 'lm_head'"),  # it is tied
        ([7], {vectors(): torch.full((1, 4), float("nan"))}, "NaN"),
        (list(range(MAX_TOKENS + 1)), {}, "too many tokens"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, indices: Any, more: dict[str, Tensor], told: str
) -> None:
    """Ids, vectors and tables must agree, all three."""
    error = refusal(tmp_path, more, trainable_token_indices=indices)
    assert re.search(told, error.message), error.message


def test_of_a_table_saved_whole_the_trained_rows_are_kept(tmp_path: Path) -> None:
    """What equals the backbone's takes no memory. PEFT keeps tables apart, also tied ones."""
    whole = torch.zeros(VOCAB, 4)
    whole[[5, 1_999]] = 1.5
    adapter = load(tmp_path, {f"{PREFIX}{HEAD}.weight": whole}, modules_to_save=["lm_head"])
    assert adapter.tokens is not None
    assert adapter.tokens.input is None
    assert adapter.tokens.output is not None
    assert adapter.tokens.output.ids == (5, 1_999)
    assert torch.equal(adapter.tokens.output.values, whole[[5, 1_999]])
    assert adapter.tokens.nbytes == adapter.tokens.output.values.untyped_storage().nbytes() == 32


def test_a_table_trained_whole_is_refused_with_its_bytes(tmp_path: Path) -> None:
    """More tokens than a batch can be compared with are told with limit and given."""
    whole = {f"{PREFIX}{HEAD}.weight": torch.ones(VOCAB, 4)}
    error = refusal(tmp_path, whole, modules_to_save=["lm_head"])
    assert "32,000 bytes" in error.message
    assert (error.limit, error.given) == (MAX_TOKENS, VOCAB)


def test_a_table_of_another_backbone_is_refused(tmp_path: Path) -> None:
    """Without `modules_to_save` PEFT would put it into the backbone, for all that is tied to it."""
    whole = {f"{PREFIX}{EMBEDDING}.weight": torch.ones(VOCAB, 4)}
    assert "not the backbone's own" in refusal(tmp_path, whole).message
    saved = refusal(
        tmp_path,
        {f"{PREFIX}{EMBEDDING}.weight": torch.eye(VOCAB, 4)},
        modules_to_save=["embed_tokens"],
        ensure_weight_tying=True,
    )
    assert "ensure_weight_tying" in saved.message


def test_lora_and_trained_tokens_of_one_table(tmp_path: Path) -> None:
    """PEFT has no such adapters, and what they would mean is not guessed."""
    more = {vectors(): torch.ones(1, 4)} | {
        f"{PREFIX}{HEAD}.lora_A.weight": torch.ones(3, 4),
        f"{PREFIX}{HEAD}.lora_B.weight": torch.ones(VOCAB, 3),
    }
    targets = ["q_proj", "v_proj", "lm_head"]
    told = refusal(tmp_path, more, trainable_token_indices=[7], target_modules=targets)
    assert "lm_head has LoRA and trained tokens" in told.message
