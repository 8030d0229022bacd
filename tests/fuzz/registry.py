"""Every surface that is fuzzed, by name."""

from __future__ import annotations

from typing import Final

from tests.fuzz.targets import (
    adapters,
    batches,
    commits,
    names,
    replies,
    reports,
    requests,
    samplers,
    settings,
    signatures,
)

TARGETS: Final = {
    target.name: target
    for target in (
        requests.TARGET,
        signatures.HEADERS,
        signatures.SIGNED,
        signatures.KEYS,
        batches.TARGET,
        replies.TARGET,
        commits.TARGET,
        reports.TARGET,
        adapters.CONFIGS,
        adapters.TENSORS,
        adapters.FOLDERS,
        samplers.TARGET,
        settings.TARGET,
        names.TARGET,
    )
}
