"""Adapters that PEFT saved, one for each value of each field, served in one batch or refused.

`python -m tests.support.conformance` writes what came of it into docs/adapters.md;
tests/conformance tells when to.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import peft
import torch
from transformers import AutoModelForCausalLM

from aril.schemas import JobError
from aril.worker.adapters import AdapterStore
from aril.worker.engine import step_sampling
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from aril.worker.engine.sampler import sample
from tests.support.conformance_cases import CASES, PLAIN, Case
from tests.support.marked import between
from tests.support.peft_reference import EngineRuns, Reference, Run
from tests.support.tiny import make_tiny_experts, make_tiny_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from aril.worker.adapters import AdapterWeights

DOC: Final = Path(__file__).parents[2] / "docs" / "adapters.md"
BEGIN: Final = "<!-- made by `python -m tests.support.conformance` -->\n"
END: Final = "<!-- end of what is made by tests.support.conformance -->\n"

PROMPT: Final = (5, 9, 17, 33, 60, 201, 7)
TOKENS: Final = 3
_TENANT: Final = "acme"
_MAX_RANK: Final = 16
_MAX_EXPERT_VALUES: Final = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """What became of one folder."""

    case: Case
    refusal: str | None
    """What its tenant is told; None: it is served."""
    warning: str | None = None
    found: Run | None = None
    expected: Run | None = None
    """PEFT's own answer."""
    plain: Run | None = None
    """The answer without an adapter in the same batch."""


def conform(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype = torch.float32
) -> tuple[Outcome, ...]:
    """Make the models and a folder of each case, serve what is served, and ask PEFT as well.

    We serve in `dtype`, PEFT answers in float32.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny products: threads only wait for each other
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT's, on half of the values
            monkeypatch.setattr(
                peft.PeftModel, "create_or_update_model_card", lambda *_: None
            )  # slow
            # With biases at q, k, v and o, so that `bias` has something to train.
            model = make_tiny_model(folder / "llama" / "tiny", attention_bias=True)
            outcomes = _conform(folder / "llama", model, monkeypatch, dtype)
            experts = make_tiny_experts(folder / "mixtral" / "tiny")
            outcomes |= _conform(folder / "mixtral", experts, monkeypatch, dtype)
            return tuple(outcomes[case] for case in range(len(CASES)))
    finally:
        torch.set_num_threads(threads)


def _conform(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> dict[int, Outcome]:
    """Return the outcomes of one model's cases, by their numbers."""
    cases = [(number, case) for number, case in enumerate(CASES) if case.kind == folder.name]
    base = AutoModelForCausalLM.from_pretrained(model)
    backbone = load_backbone(model, "cpu", dtype)
    store = AdapterStore(
        folder / "store",
        base_model=backbone.name,
        linear_shapes=backbone.linear_shapes,
        max_rank=_MAX_RANK,
        own=backbone.own_weights,
        parameters=backbone.parameters,
        max_expert_values=_MAX_EXPERT_VALUES,
    )
    read: list[AdapterWeights | str] = []
    for number, case in cases:
        save(case, folder / "store" / _TENANT / f"case-{number}", base, seed=number)
        read.append(read_or_refused(store, f"case-{number}"))
    served = [each for each in read if not isinstance(each, str)]
    rows = len(served) + 1
    config = EngineConfig(
        max_rows=rows,
        max_step_tokens=rows * len(PROMPT),
        slots=len(served),
        max_rank=_MAX_RANK,
        kv_tokens=rows * 32,
        dtype=dtype,
    )
    monkeypatch.setattr(step_sampling, "sample", sample)  # the other model's runs listened there
    runs = EngineRuns.recording(Engine(backbone, config), monkeypatch)
    plain, *found = runs.generate([(PROMPT, each) for each in (None, *served)], TOKENS)
    answers = iter(found)
    outcomes = {}
    for (number, case), each in zip(cases, read, strict=True):
        if isinstance(each, str):
            outcomes[number] = Outcome(case, each)
            continue
        path = folder / "store" / _TENANT / f"case-{number}"
        expected = Reference(model, {"one": path}).generate(PROMPT, "one", TOKENS)
        outcomes[number] = Outcome(case, None, each.warning, next(answers), expected, plain)
    return outcomes


def read_or_refused(store: AdapterStore, name: str) -> AdapterWeights | str:
    """Return the adapter, or what a tenant is told that asks for it."""
    try:
        return store.load(store.find(_TENANT, name))
    except JobError as error:
        told = error.message.removeprefix(f"adapter {name}: ")
        sizes = ("limit", error.limit), ("given", error.given)
        more = ", ".join(f"{name}: {value:,}" for name, value in sizes if value is not None)
        return f"{told} ({more})" if more else told


def save(case: Case, folder: Path, base: Any, *, seed: int) -> None:
    """Let PEFT save the case's adapter of `base` with random weights; `base` stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = peft.LoraConfig(**PLAIN | case.config)
        model = peft.get_peft_model(copy.deepcopy(base), config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_magnitude_vector" in name:
                    parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5))
                elif "lora_" in name:
                    parameter.normal_(std=parameter.shape[-1] ** -0.5)
                elif parameter.requires_grad and case.trained:
                    parameter.add_(torch.randn_like(parameter) * 0.5)
        for name, value in case.saved.items():
            setattr(model.peft_config["default"], name, value)
        model.save_pretrained(folder)


def section(outcomes: Sequence[Outcome]) -> str:
    """Return the table, as Markdown: a row for each case."""
    lines = [
        f"With PEFT {peft.__version__}:",
        "",
        "| field | set to | |",
        "| --- | --- | --- |",
    ]
    for outcome in outcomes:
        case = outcome.case
        if outcome.refusal is not None:
            told = f"refused: {outcome.refusal}"
        elif outcome.warning is not None:
            told = f"PEFT's answers, and a warning: {outcome.warning}"
        else:
            told = "PEFT's answers"
        value, told = (text.replace("|", "\\|") for text in (case.value, told))
        lines.append(f"| `{case.field}` | {value} | {told} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table anew."""
    import pytest  # noqa: PLC0415  # for its monkeypatch, here too

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        made = section(conform(Path(folder), patch))
    DOC.write_text(between(DOC.read_text(), BEGIN, made, END))


if __name__ == "__main__":
    main()
