"""A worker's engine as it is loaded: tenants hear of every limit before the engine does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from structlog.testing import capture_logs

from aril.schemas import ErrorCode, Job, JobError, Sampling
from aril.worker.engine.processor import cpu_dtype
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.weights_digest import weights_digest
from aril.worker.loading import Loaded, load_model
from aril.worker.settings import load_settings
from tests.support.tiny import make_tiny_adapter, make_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

KV_TOKENS = 100  # 96 in whole blocks; the backbone was made for 512


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny model, and a store with an adapter of a rank that is not served."""
    folder = tmp_path_factory.mktemp("worker")
    make_tiny_model(folder / "model", "llama")
    make_tiny_adapter(folder / "store" / "shared" / "large", folder / "model", rank=9)
    make_tiny_adapter(folder / "store" / "shared" / "small", folder / "model", rank=8)
    return folder


@pytest.fixture
def loaded(folder: Path) -> Loaded:
    """Load the model as a worker does."""
    flags = {
        "model": str(folder / "model"),
        "adapters": str(folder / "store"),
        "device": "cpu",
        "kv_tokens": KV_TOKENS,
        "max_rank": 8,
    }
    return load_model(load_settings(flags=flags).settings)


def job(prompt: int, answer: int, token: int = 7) -> Job:
    """Return a job of so many tokens of prompt and answer."""
    sampling = Sampling(max_tokens=answer, temperature=0.0, ignore_eos=True)
    return Job(id="a", tenant="acme", token_ids=(token,) * prompt, sampling=sampling)


@pytest.mark.parametrize("answer", [1, 4])
def test_what_tenants_may_ask_the_engine_takes(answer: int, loaded: Loaded) -> None:
    """The longest job and the highest token pass both; one more is a typed error, not a bug."""
    longest = job(96 - answer, answer, token=383)
    request = GenerationRequest(
        key=0,
        prompt_ids=loaded.prompts.encode(longest).ids,
        sampling=longest.sampling,
        seed=0,
        adapter=None,
    )
    loaded.engine.submit(request)
    ids: list[int] = []
    while loaded.engine.has_work:
        ids += [token for output in loaded.engine.step() for token in output.ids]
    assert len(ids) == answer
    for beyond in (job(97 - answer, answer), job(1, 96), job(1, answer, token=384)):
        with pytest.raises(JobError):
            loaded.prompts.encode(beyond)


async def test_adapters_are_judged_before_the_engine_sees_them(loaded: Loaded) -> None:
    """A rank over the limit is told with it; what is served is ready for any slot."""
    assert loaded.adapters is not None
    with pytest.raises(JobError) as caught:
        await loaded.adapters.get("acme", "large")
    error = caught.value
    assert (error.code, error.limit, error.given) == (ErrorCode.ADAPTER_INVALID, 8, 9)
    request = GenerationRequest(
        key=0,
        prompt_ids=(1, 2),
        sampling=Sampling(max_tokens=2),
        seed=0,
        adapter=await loaded.adapters.get("acme", "small"),
    )
    loaded.engine.submit(request)
    assert loaded.engine.step()[0].error is None


def test_operators_are_told_what_was_loaded(folder: Path) -> None:
    """One line: linears, those that take adapters, groups, slots, tokens; the weights' digest."""
    flags = {"model": str(folder / "model"), "device": "cpu", "slots": 3, "kv_tokens": KV_TOKENS}
    with capture_logs() as logged:
        load_model(load_settings(flags=flags).settings)
    assert logged == [
        {
            "event": "engine_ready",
            "log_level": "info",
            "linears": 15,
            "adapted": 15,
            "groups": 9,
            "slots": 3,
            "kv_tokens": 96,
            "context": 96,
            "speculation": 7,
            "threads": torch.get_num_threads(),
            "base_digest": weights_digest(folder / "model", cpu_dtype()),
            "dtype": str(cpu_dtype()).removeprefix("torch."),
            "weights": "stored",
        }
    ]
