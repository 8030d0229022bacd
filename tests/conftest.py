"""What every test shares: the interpreter switch, offline libraries, the broker."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

from tests.support import brokers

if TYPE_CHECKING:
    from collections.abc import Iterator

# Decided when a kernel is decorated, so before anything imports one.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# No test may reach for a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A deadline is a timed assertion: on a busy machine it fails what is right. CI draws the same cases
# each time, so that a failure there names a change; elsewhere each run draws new ones.
settings.register_profile("aril", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("aril")

# Settings of the person who runs the tests must not leak into them.
for name in [name for name in os.environ if name.startswith("ARIL_")]:
    del os.environ[name]

# A shell without job control has what it starts with `&` ignore Ctrl-C, and all its children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Say which broker the tests run against: not every claim holds on every one."""
    return brokers.report_header()


@pytest.fixture
def group_protocol() -> str:
    """How workers are in their group; `tests.support.group_protocols` has tests run by either."""
    return "classic"


@pytest.fixture(scope="session")
def kafka() -> Iterator[brokers.Kafka]:
    """Run one broker for all tests that need one."""
    with brokers.running_kafka() as running:
        yield running
