"""Each thread that launches for an engine does so on the engine's GPU."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aril.schemas import Sampling
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.device import use_device
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from aril.worker.engine.request import GenerationRequest
from aril.worker.loading import ModelError, load_model
from aril.worker.settings import load_settings
from tests.support.tiny import make_tiny_model
from tests.support.weights import random_adapter


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, torch.device]]:
    """Note which thread takes which device."""
    found: list[tuple[str, torch.device]] = []
    monkeypatch.setattr(
        torch.cuda,
        "set_device",
        lambda device: found.append((threading.current_thread().name, device)),
    )
    return found


@pytest.mark.parametrize(("name", "count"), [("cuda:1", 1), ("cuda", 0), ("cpu", 0)])
def test_only_a_numbered_gpu_is_taken(
    taken: list[tuple[str, torch.device]], name: str, count: int
) -> None:
    """Without a number it is the one that torch takes anyway."""
    use_device(torch.device(name))
    assert [device for _, device in taken] == [torch.device(name)] * count


def test_every_thread_of_an_engine_takes_its_device(
    tmp_path: Path, taken: list[tuple[str, torch.device]]
) -> None:
    """An adapter is prepared in one thread, requests are submitted and run in another."""
    backbone = load_backbone(make_tiny_model(tmp_path), "cpu", torch.float32)
    config = EngineConfig(max_rows=2, max_step_tokens=16, slots=1, max_rank=4, kv_tokens=64)
    engine = Engine(backbone, config)
    card = torch.device("cuda:1")
    engine.backbone = replace(backbone, device=card)
    adapter = random_adapter(backbone.linear_shapes, "a", rank=2)
    request = GenerationRequest(
        key=0, prompt_ids=(3,), sampling=Sampling(max_tokens=1), seed=0, adapter=None
    )
    for name, work in (
        ("prepare", lambda: engine.prepare(adapter)),
        ("submit", lambda: engine.submit(request)),
        ("step", engine.step),
    ):
        if name == "step":
            engine.cancel(request.key)  # nothing is to run: there is no such device here
        thread = threading.Thread(target=work, name=name)
        thread.start()
        thread.join()
    assert taken == [(name, card) for name in ("prepare", "submit", "step")]


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line, with how many there are."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    model = make_tiny_model(tmp_path)
    settings = load_settings(flags={"model": str(model), "device": "cuda:2"}).settings
    with pytest.raises(ModelError, match="cuda:2 was asked for, torch finds 2 GPUs"):
        load_model(settings)


def test_products_of_another_thread_have_the_number_that_was_set() -> None:
    """OpenMP counts for each thread: one that never asked torch would use all cores."""
    maps = Path("/proc/self/maps")
    names = {line.split()[-1] for line in maps.read_text().splitlines()} if maps.is_file() else ()
    openmp = next((name for name in sorted(names) if "libgomp" in name), None)
    if openmp is None:
        pytest.skip("torch runs on another OpenMP here")
    count, before = ctypes.CDLL(openmp).omp_get_max_threads, torch.get_num_threads()
    found: list[int] = []

    def run() -> None:
        use_device(torch.device("cpu"))
        found.append(count())

    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
    finally:
        torch.set_num_threads(before)
    assert found == [1, 3]
