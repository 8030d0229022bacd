"""Which type of numbers `ARIL_DTYPE=auto` is on a CPU."""

from __future__ import annotations

import pytest
import torch

from aril.worker.engine.processor import BFLOAT16, cpu_dtype


@pytest.mark.parametrize("name", BFLOAT16)
def test_bfloat16_where_it_is_multiplied(name: str) -> None:
    """Either set of instructions is enough."""
    assert cpu_dtype({name: True}) is torch.bfloat16


@pytest.mark.parametrize("found", [{}, {"avx512_f": True, "avx512_bf16": False}, {"bf16": True}])
def test_float32_elsewhere(found: dict[str, bool]) -> None:
    """Without them, and on ARM, products in bfloat16 are not known to be the faster."""
    assert cpu_dtype(found) is torch.float32


def test_float32_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is oneDNN that uses these instructions."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert cpu_dtype(dict.fromkeys(BFLOAT16, True)) is torch.float32


def test_torch_tells_of_these_instructions() -> None:
    """A capability under another name would pass for one that is missing."""
    capabilities = torch.cpu.get_capabilities()
    if capabilities["architecture"] == "x86_64":
        assert set(BFLOAT16) <= capabilities.keys()
