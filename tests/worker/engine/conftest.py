"""What the engine's tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from aril.worker.engine.forward_pass import AttentionLayout
from aril.worker.engine.kv_cache import KVCache
from aril.worker.engine.model import Backbone, load_backbone
from tests.support.fake_gpu import FakeGpu, fake_gpu
from tests.support.tiny import make_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models lose more by sharing their work among threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def rounds_to_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Triton's interpreter round to bfloat16 as a GPU does."""
    from tests.support.interpreter import round_to_nearest  # noqa: PLC0415 - loads Triton

    round_to_nearest(monkeypatch)


def layout(layer: int, kv_heads: int = 2, head_dim: int = 8) -> AttentionLayout:
    """Layout of one layer; only its shape matters here."""
    return AttentionLayout(layer, 4, kv_heads, head_dim, scale=1.0, window=None)


@pytest.fixture
def cache() -> KVCache:
    """Three layers, one of them of another shape; 6 blocks of 4."""
    return KVCache(
        [layout(0), layout(1, kv_heads=1), layout(2)],
        blocks=6,
        block_size=4,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    """Load a tiny Llama."""
    return load_backbone(make_tiny_model(tmp_path, "llama"), "cpu", torch.float32)


@pytest.fixture(scope="session")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Load a tiny Llama of one layer; tests run copies of it."""
    path = make_tiny_model(tmp_path_factory.mktemp("model"), "llama", num_hidden_layers=1)
    return load_backbone(path, "cpu", torch.float32)


@pytest.fixture
def gpu() -> Iterator[FakeGpu]:
    """Let "cuda" be a device that is none; where there is one the test has nothing to say."""
    if torch.cuda.is_available():
        pytest.skip("CUDA is there")
    with fake_gpu() as found:
        yield found
