"""On a GPU a step of sampling is one copy there, no waiting, and one read.

Without a GPU: fake tensors of a CUDA device have no values, so whatever would read one, or needs a
shape that depends on one, raises; and every operator is seen on its way.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aril.schemas import Sampling
from aril.worker.engine import one_copy, sampler
from aril.worker.engine.sampler import FAILED, launch, read, sample
from aril.worker.engine.token_masks import TokenMasks
from tests.worker.engine.test_sampler import row
from tests.worker.engine.test_token_masks import ENDS, Drawn, ListedMatcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VOCAB = 131
SETTINGS = {
    "greedy": Sampling(temperature=0.0),
    "temperature": Sampling(),
    "top_p": Sampling(top_p=0.9),
    "top_k": Sampling(top_k=20, min_p=0.1),
    "logprobs": Sampling(logprobs=5),
    "penalties": Sampling(repetition_penalty=1.1, frequency_penalty=0.1, presence_penalty=0.2),
    "biases": Sampling(logit_bias={"3": 2.0, "7": -1.0}, min_tokens=9, max_tokens=20),
    "greedy, all": Sampling(temperature=0.0, logprobs=2, repetition_penalty=0.9),
}


class Crossings(TorchDispatchMode):
    """Counts the operators that take something over from the host, or back to it."""

    def __init__(self) -> None:
        super().__init__()
        self.there = self.back = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Look at the devices on both sides."""
        result = func(*args, **(kwargs or {}))
        taken = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        made = [each for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
        for each in made:
            if each.device.type == "cuda":
                self.there += any(one.device.type == "cpu" for one in taken)
            else:
                self.back += any(one.device.type == "cuda" for one in taken)
        return result


def rows_of(names: Sequence[str], *, constrained: bool) -> list[Any]:
    """Make rows with some history, every other one with a constraint if there are any."""
    return [
        Drawn(
            ListedMatcher(range(0, VOCAB, 3)) if constrained and place % 2 else None,
            SETTINGS[name],
            seed=place,
            index=3,
            prompt_ids=(1, 5, 1),
            output_ids=[2, 2, 9],
            end_ids=ENDS,
        )
        for place, name in enumerate(names)
    ]


@pytest.mark.parametrize("names", [(name,) * 4 for name in SETTINGS] + [tuple(SETTINGS)])
@pytest.mark.parametrize("constrained", [False, True])
def test_one_copy_there_and_no_read(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], *, constrained: bool
) -> None:
    """Whatever the settings, alone or mixed; and what is read is one tensor."""
    monkeypatch.setattr(one_copy, "pinned", lambda words: words)  # needs a driver
    rows = rows_of(names, constrained=constrained)
    with FakeTensorMode(allow_non_fake_inputs=True):
        logits = torch.empty(len(rows), VOCAB, device="cuda")
        masks = TokenMasks(len(rows), VOCAB, "cuda")
        with Crossings() as crossings:
            result = launch(logits, rows, masks)
        assert (crossings.there, crossings.back) == (1, 0)
        assert result.device.type == "cuda"
        assert (result.ndim, result.dtype) == (1, torch.float64)
        with pytest.raises(DataDependentOutputException):
            result.tolist()


def test_what_a_row_tells_a_device_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, before it is copied."""
    told: list[int] = []

    def pinned(words: torch.Tensor) -> torch.Tensor:
        told.append(len(words))
        return words

    monkeypatch.setattr(one_copy, "pinned", pinned)
    with FakeTensorMode(allow_non_fake_inputs=True), Crossings() as crossings:
        launch(torch.empty(2, VOCAB, device="cuda"), rows_of(("top_p",) * 2, constrained=False))
    assert (len(told), crossings.there) == (1, 1)


def test_a_device_gives_what_a_cpu_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids and log probabilities, bit for bit, for rows with every kind of setting and logits."""
    dice = random.Random(5)
    for vocab in (5, 71, 4_103):
        logits = torch.randn(40, vocab, generator=torch.Generator().manual_seed(vocab))
        logits = (logits * torch.linspace(0, 8, 40)[:, None] * 4).round() / 4
        logits[3, 1] = torch.nan
        logits[5] = -torch.inf
        rows = [
            row(
                Sampling(
                    temperature=dice.choice([0.0, 0.3, 1.0, 2.0]),
                    top_k=dice.choice([0, 0, 1, 2, 80, 4100]),
                    top_p=dice.choice([1.0, 1.0, 0.9, 0.2]),
                    min_p=dice.choice([0.0, 0.0, 0.001]),
                    repetition_penalty=dice.choice([1.0, 1.3]),
                    frequency_penalty=dice.choice([0.0, 0.5]),
                    logprobs=dice.choice([None, 0, 3, 20]),
                    logit_bias=dice.choice([{}, {"1": 3.0}]),
                ),
                seed=dice.getrandbits(60),
                output=tuple(dice.randrange(vocab) for _ in range(dice.randrange(9))),
            )
            for _ in range(40)
        ]
        on_host = sample(logits.clone(), rows)
        with monkeypatch.context() as there:
            there.setattr(sampler, "on_host", lambda _logits: False)
            assert sample(logits.clone(), rows) == on_host
        assert min(on_host.ids) > FAILED


def test_a_result_is_read_without_its_rows_logits() -> None:
    """Ids, then what each row that asked is told, in the order of the rows."""
    rows = [row(Sampling(logprobs=each)) for each in (None, 0, 2)]
    values = [7.0, 8.0, 9.0, -0.5, -0.25, -0.1, -0.2, -0.25, -2.0, 4.0, 5.0, 9.0, 6.0]
    found = read(values, rows)
    assert found.ids == [7, 8, 9]
    assert [each and (each.chosen, each.top) for each in found.logprobs] == [
        None,
        (-0.5, ()),
        (-0.25, ((9, -0.25), (6, -2.0))),
    ]
