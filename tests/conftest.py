"""What every test shares: the interpreter switch, offline libraries, the broker."""

from __future__ import annotations

import os

import torch

# Decided when a kernel is decorated, so before anything imports one.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# No test may reach for a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Settings of the person who runs the tests must not leak into them.
for name in [name for name in os.environ if name.startswith("ARIL_")]:
    del os.environ[name]
