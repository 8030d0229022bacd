"""What PEFT and transformers answer, and how an engine's run is held against it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from aril.schemas import Sampling
from aril.worker.adapters import AdapterWeights
from aril.worker.engine.probe import LOGIT_BOUND
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.sampler import sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import pytest
    from torch import Tensor

    from aril.worker.engine.engine import Engine
    from aril.worker.engine.mixture import Mixture


@dataclass(frozen=True)
class Run:
    """A greedy answer: its tokens, and the logits [tokens, vocab] each was chosen by."""

    ids: list[int]
    logits: Tensor


@torch.no_grad()
def generate(model: Any, prompt_ids: Sequence[int], tokens: int) -> Run:
    """Generate greedily, past any end-of-sequence token."""
    ids = torch.tensor([list(prompt_ids)])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        eos_token_id=model.config.vocab_size,  # no token has it: goes on to the limit
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return Run(out.sequences[0, len(prompt_ids) :].tolist(), torch.cat(out.logits))


class Reference:
    """`PeftModel.generate` with each adapter, and without any."""

    def __init__(self, model_path: Path, adapters: Mapping[str, Path]) -> None:
        from peft import PeftModel  # noqa: PLC0415  # slow

        transformers_logging.disable_progress_bar()
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            model_path, dtype=torch.float32, attn_implementation="eager"
        )
        with warnings.catch_warnings():
            # PEFT still reads a property that transformers has renamed.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
            for name, path in adapters.items():
                if isinstance(self.model, PeftModel):
                    self.model.load_adapter(path, adapter_name=name)
                else:
                    self.model = PeftModel.from_pretrained(self.model, path, adapter_name=name)
        self.model.eval()

    @torch.no_grad()
    def generate(self, prompt_ids: Sequence[int], adapter: str | None, tokens: int) -> Run:
        """Generate greedily, past any end-of-sequence token."""
        if adapter is None:
            with self.model.disable_adapter():
                return self._generate(prompt_ids, tokens)
        self.model.set_adapter(adapter)
        return self._generate(prompt_ids, tokens)

    @torch.no_grad()
    def generate_scaled(
        self, prompt_ids: Sequence[int], adapter: str, scale: float, tokens: int
    ) -> Run:
        """Generate with an adapter as strong as PEFT's `set_scale` makes it."""
        layers = [each for each in self.model.modules() if hasattr(each, "set_scale")]
        for layer in layers:
            layer.set_scale(adapter, scale)
        try:
            return self.generate(prompt_ids, adapter, tokens)
        finally:
            for layer in layers:
                layer.set_scale(adapter, 1.0)

    def mix(self, name: str, adapters: Sequence[str], weights: Sequence[float]) -> None:
        """Add PEFT's own sum of adapters, under a name."""
        self.model.add_weighted_adapter(list(adapters), list(weights), name, combination_type="cat")

    def _generate(self, prompt_ids: Sequence[int], tokens: int) -> Run:
        return generate(self.model, prompt_ids, tokens)


@dataclass
class EngineRuns:
    """The runs of one engine, with the logits that its sampler was given."""

    engine: Engine
    _logits: dict[int, list[Tensor]] = field(default_factory=dict)

    @classmethod
    def recording(cls, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> EngineRuns:
        """Listen at the engine's sampler."""
        runs = cls(engine)

        def listen(logits: Tensor, rows: Any, *more: Any) -> Any:
            for row, own in zip(rows, logits, strict=True):
                runs._logits.setdefault(row.key, []).append(own.clone())
            return sample(logits, rows, *more)

        monkeypatch.setattr("aril.worker.engine.step_sampling.sample", listen)
        return runs

    @staticmethod
    def greedy(tokens: int) -> Sampling:
        """Say how each of them is sampled."""
        return Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)

    def generate(
        self,
        jobs: Iterable[tuple[Sequence[int], AdapterWeights | Mixture | None]],
        tokens: int,
        scales: Sequence[float] | None = None,
    ) -> list[Run]:
        """Run all jobs at once, greedily, past any end-of-sequence token.

        `scales` are how strong the adapters are, one a job, all 1 by default.
        """
        self._logits.clear()
        sampling = self.greedy(tokens)
        ids: dict[int, list[int]] = {}
        for key, (prompt_ids, adapter) in enumerate(jobs):
            ids[key] = []
            start: int | None = 0
            if isinstance(adapter, AdapterWeights):
                start = adapter.active_from(prompt_ids)
            self.engine.submit(
                GenerationRequest(
                    key=key,
                    prompt_ids=tuple(prompt_ids),
                    sampling=sampling,
                    seed=0,
                    adapter=None if start is None else adapter,
                    adapter_scale=1.0 if scales is None else scales[key],
                    active_from=start or 0,
                )
            )
        while self.engine.has_work:
            for output in self.engine.step():
                assert output.error is None
                ids[output.key].extend(output.ids)
        return [Run(own, torch.stack(self._logits[key])) for key, own in ids.items()]


@dataclass
class Comparison:
    """Steps that were compared, and the near ties behind which answers may rightly differ."""

    steps: int = 0
    near_ties: list[str] = field(default_factory=list)

    def check(self, name: str, found: Run, expected: Run) -> None:
        """Assert equal tokens and close logits, up to the first near tie of the reference.

        The logit bound is the probe's: a share of the largest logit. A near tie is a step whose two
        best logits are closer than both sides' bounds together.
        """
        assert len(found.ids) == len(expected.ids)
        for step, (ours, theirs) in enumerate(zip(found.logits, expected.logits, strict=True)):
            bound = LOGIT_BOUND[torch.float32] * float(theirs.abs().max())
            difference = float((ours - theirs).abs().max())
            assert difference <= bound, f"{name}: logits differ by {difference} at step {step}"
            best, second = theirs.topk(2).values.tolist()
            if best - second < 2 * bound:
                self.near_ties.append(f"{name} step {step}: gap {best - second:.1e}")
                return
            assert found.ids[step] == expected.ids[step], f"{name}: token at step {step}"
            self.steps += 1
