"""Invariant mode through the whole model: the same bits, whatever runs beside a row."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.demo.model import ensure_model
from aril.schemas import Sampling
from aril.worker.engine import invariance
from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.block_products import in_pieces
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.invariance import probe_invariance
from aril.worker.engine.model import load_backbone
from aril.worker.engine.request import GenerationRequest
from tests.support.tiny import Architecture, make_tiny_model
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.request import Output

CONFIG = EngineConfig(
    max_rows=24,
    max_step_tokens=96,
    slots=8,
    max_rank=16,
    kv_tokens=2_048,
    backend="torch",
    invariant=True,
)
SAMPLED = Sampling(max_tokens=12, temperature=0.9, top_p=0.95, logprobs=3, ignore_eos=True)
DORA = 4  # the rank of the adapter that has magnitudes
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen3", "gemma")


def engine_in(path: Path, **changes: Any) -> Engine:
    """Load the model into an engine of its own."""
    config = replace(CONFIG, **changes)
    return Engine(load_backbone(path, "cpu", config.dtype), config)


def request_of(key: int, length: int, adapter: AdapterWeights | None, **more: Any) -> Any:
    """Ask for a sampled answer with logprobs: bits show in them before they show in tokens."""
    prompt = tuple((31 * at + 7 * key + 3) % 384 for at in range(length))
    fields: dict[str, Any] = {"sampling": SAMPLED, "seed": 1_000 + key} | more
    return GenerationRequest(key=key, prompt_ids=prompt, adapter=adapter, **fields)


def answers(engine: Engine, *requests: GenerationRequest) -> dict[int, list[Output]]:
    """Run until all is answered."""
    found: dict[int, list[Output]] = {request.key: [] for request in requests}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        for output in engine.step():
            assert output.error is None
            found[output.key].append(output)
    return found


def bits(outputs: list[Output]) -> list[tuple[Any, ...]]:
    """Return all that the model computed, to the last bit."""
    return [(each.ids, each.logprobs) for each in outputs if each.ids]


@pytest.fixture
def mixed(tmp_path: Path) -> list[AdapterWeights | None]:
    """Nobody's, and four adapters of other ranks, two of which leave linears alone."""
    shapes = load_backbone(make_tiny_model(tmp_path / "shapes"), "cpu", torch.float32).linear_shapes
    return [None, *(adapter_of(shapes, rank) for rank in (1, 4, 8, 16))]


def adapter_of(shapes: Mapping[str, tuple[int, int]], rank: int) -> AdapterWeights:
    """Random weights; the larger ranks change only some of the linears, one is DoRA."""
    targets = None if rank < 8 else ("q_proj", "up_proj", "down_proj")
    return random_adapter(
        shapes, f"r{rank}", rank=rank, scaling=0.7, seed=rank, dora=rank == DORA, targets=targets
    )


@pytest.mark.parametrize(
    ("arch", "dtype"),
    [*((arch, torch.float32) for arch in ARCHITECTURES), ("llama", torch.bfloat16)],
)
def test_an_answer_is_the_same_alone_and_among_any_others(
    arch: Architecture, dtype: torch.dtype, tmp_path: Path, mixed: list[AdapterWeights | None]
) -> None:
    """Twenty jobs of five adapters, chunked prefill beside decodes; then each of some alone."""
    path = make_tiny_model(tmp_path, arch)
    engine_of = partial(engine_in, dtype=dtype)
    requests = [request_of(key, 1 + 9 * key % 70, mixed[key % 5]) for key in range(20)]
    together = answers(engine_of(path), *requests)
    other = engine_of(path, max_rows=7, max_step_tokens=33, step_stretch=1.0)
    backwards = answers(other, *requests[::-1])
    for request in requests:
        assert bits(backwards[request.key]) == bits(together[request.key])
    for request in requests[::4]:
        alone = answers(engine_of(path), request)
        assert bits(alone[request.key]) == bits(together[request.key])


def test_an_answer_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, mixed: list[AdapterWeights | None]
) -> None:
    """Taken over after any token, beside other neighbours: the rest is the rest, bit for bit."""
    path = make_tiny_model(tmp_path, "llama")
    request = request_of(1, 21, mixed[2])
    whole = answers(engine_in(path), request, *(request_of(n, 5 + n, mixed[n]) for n in (2, 3)))[1]
    ids = tuple(token for output in whole for token in output.ids)
    engine = engine_in(path)
    for cut in range(1, len(ids)):
        resumed = replace(request, resume_ids=ids[:cut])
        rest = answers(engine, resumed, *(request_of(n, 40, mixed[4]) for n in range(9, 9 + cut)))
        assert bits(rest[1]) == bits(whole)[cut:]


def test_the_probe_notices_a_product_that_depends_on_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last bit that the number of rows decides ends the start."""

    def spoiled(
        multiply: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, counts: tuple[int, ...]
    ) -> torch.Tensor:
        return in_pieces(multiply, x, counts) * (1 + 1e-7 * (x.shape[-2] % 3))

    monkeypatch.setattr("aril.worker.engine.groups.can_tile", lambda *_: False)
    monkeypatch.setattr("aril.worker.engine.groups.in_pieces", spoiled)
    with pytest.raises(UnsupportedModelError, match="depend on the rows beside it"):
        engine_in(make_tiny_model(tmp_path, "llama"))


def test_capped_scores_have_it(tmp_path: Path) -> None:
    """Gemma 2 passes the probe: its rows keep their bits."""
    engine = engine_in(make_tiny_model(tmp_path, "gemma2"))
    probe_invariance(engine.backbone, engine.config)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_real_model_has_it(dtype: torch.dtype) -> None:
    """SmolLM2, whose products are large enough for libraries to choose kernels by the batch."""
    engine = engine_in(ensure_model(), dtype=dtype)
    probe_invariance(engine.backbone, engine.config)


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"dtype": torch.float16}, "float32 or bfloat16"), ({"device": "cuda"}, "CPU only")],
)
def test_what_has_no_invariant_mode_is_refused(
    changes: dict[str, Any], word: str, tmp_path: Path
) -> None:
    """One line at start, before anything is served."""
    backbone = load_backbone(make_tiny_model(tmp_path, "llama"), "cpu", torch.float32)
    with pytest.raises(UnsupportedModelError, match=word):
        Engine(backbone, replace(CONFIG, **changes))


def test_a_linear_that_runs_on_its_own_is_refused(tmp_path: Path) -> None:
    """Its products would have the batch's shape."""
    backbone = load_backbone(make_tiny_model(tmp_path, "llama"), "cpu", torch.float32)
    names = set(backbone.linear_shapes)
    invariance.refuse_other_linears(backbone, names)
    with pytest.raises(UnsupportedModelError, match="lm_head"):
        invariance.refuse_other_linears(backbone, names - {"lm_head"})
