"""A store for a backbone of four linears."""

from pathlib import Path

import pytest

from aril.worker.adapters import AdapterStore
from tests.support.adapter_folders import SHAPES


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the folder of an empty store."""
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def store(root: Path) -> AdapterStore:
    """Return the store, for ranks up to 8."""
    return AdapterStore(root, base_model="acme/tiny", linear_shapes=SHAPES, max_rank=8)
