"""Every causal language model of the installed transformers, tiny and random, served or refused.

`python -m tests.support.backbones` writes what came of it into docs/backbones.md, and with names
behind it says of these what it would write; tests/docs/test_backbones.py tells when to.
"""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import adopt_backbone
from tests.support.backbone_configs import NOT_TRIED, VOCABULARY, model_class, tiny_config
from tests.support.marked import between
from tests.support.tiny import INITIAL_SPREAD, make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from transformers import PreTrainedModel

    from aril.worker.engine.forward_pass import AttentionLayout

DOC: Final = Path(__file__).parents[2] / "docs" / "backbones.md"
BEGIN: Final = "<!-- made by `python -m tests.support.backbones` -->\n"
END: Final = "<!-- end of what is made by tests.support.backbones -->\n"

# The kinds that people ask for first; the others follow by name.
KNOWN: Final = (
    *("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "gemma3", "phi"),
    *("phi3", "smollm3", "granite", "olmo2", "olmo3", "gpt2", "gpt_neox", "qwen2_moe"),
    *("qwen3_moe", "mixtral", "gpt_oss", "cohere", "cohere2", "starcoder2", "deepseek_v2"),
    *("deepseek_v3", "gemma3n_text", "gemma4_text", "qwen3_next", "qwen3_5_text", "llama4_text"),
    *("falcon", "stablelm", "opt", "bloom", "mpt", "gptj", "mamba", "rwkv"),
)


@dataclass(frozen=True)
class Outcome:
    """What became of one kind."""

    kind: str  # as `model_type` in config.json
    made: Literal["equal", "refused", "not tried"]
    told: str  # how its layers attend; why it was refused; why it was not tried


def kinds() -> list[str]:
    """All kinds that transformers has a causal language model for."""
    names = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    return [*(kind for kind in KNOWN if kind in names), *sorted(names - set(KNOWN))]


def serve(chosen: Iterable[str]) -> list[Outcome]:
    """Make a model of each kind and start an engine with it, which compares its logits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny products: threads only wait for each other
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations within transformers
            return [_serve(kind) for kind in chosen]
    finally:
        transformers_logging.set_verbosity(verbosity)
        torch.set_num_threads(threads)


def _serve(kind: str) -> Outcome:
    if reason := NOT_TRIED.get(kind):
        return Outcome(kind, "not tried", reason)
    try:
        model = make_tiny_backbone(kind)
    except Exception as error:  # noqa: BLE001  # whatever a configuration of ours lacks
        return Outcome(kind, "not tried", f"{type(error).__name__}: {_one_line(error)}")
    try:
        backbone = adopt_backbone(model, make_tokenizer(VOCABULARY), "cpu", name=kind)
        config = EngineConfig(max_rows=4, max_step_tokens=64, slots=1, max_rank=4, kv_tokens=256)
        Engine(backbone, config)
    except UnsupportedModelError as error:
        told = _one_line(error)
        return Outcome(kind, "refused", told.removeprefix(f"{model.config.model_type}: "))
    return Outcome(kind, "equal", _attention(backbone.layouts))


def make_tiny_backbone(kind: str, *, run: bool = True, **changes: Any) -> PreTrainedModel:
    """Make the model, with other values of its fields if wanted.

    It is run once by itself: a mistake in its configuration is none of the engine's.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = model_class(kind)(tiny_config(kind, **changes)).float().eval()
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=INITIAL_SPREAD)
            elif name.endswith((".bias", ".sinks")) or not parameter.isfinite().all():
                parameter.normal_()  # some are zero, and some wait for a checkpoint
        if run:
            model(input_ids=torch.arange(3, 12)[None], use_cache=False)
    made: PreTrainedModel = model
    return made


def _attention(layouts: Sequence[AttentionLayout]) -> str:
    """Say what the layers' attention has that was compared."""
    windows = [layout.window for layout in layouts]
    some = "every layer" if None not in windows else "some layers"
    found = [f"{some}: a window"] if any(windows) else []
    if any(layout.chunk for layout in layouts):
        found.append("some layers: chunks")
    if any(layout.heads != layout.kv_heads for layout in layouts):
        found.append("grouped heads")
    if any(layout.softcap for layout in layouts):
        found.append("capped scores")
    if any(layout.sinks is not None for layout in layouts):
        found.append("sinks")
    return ", ".join(found) or "plain"


def _one_line(error: Exception) -> str:
    """Return an error's first line. Numbers that rounding decides are left out."""
    line = (str(error).strip() or "no message").splitlines()[0]
    return re.sub(r" by \d\.\de[+-]\d\d of the largest", "", line)[:160]


def section(outcomes: Sequence[Outcome]) -> str:
    """Return the tables, as Markdown."""
    lines = [f"With transformers {transformers.__version__}:"]
    for made, heading in (
        ("equal", "| served: logits equal | attention |"),
        ("refused", "| refused | with the words |"),
        ("not tried", "| not tried | why |"),
    ):
        rows = [each for each in outcomes if each.made == made]
        if rows:
            lines += ["", heading, "| --- | --- |"]
            lines += [f"| `{each.kind}` | {each.told.replace('|', '/')} |" for each in rows]
    return "\n".join(lines) + "\n"


def main(chosen: Sequence[str]) -> None:
    """Write the tables anew, or say what became of some kinds."""
    outcomes = serve(chosen or kinds())
    if chosen:
        for each in outcomes:
            sys.stdout.write(f"{each.kind:24} {each.made:9} {each.told}\n")
        return
    DOC.write_text(between(DOC.read_text(), BEGIN, section(outcomes), END))


if __name__ == "__main__":
    main(sys.argv[1:])
