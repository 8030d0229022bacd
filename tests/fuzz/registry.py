"""Every surface that is fuzzed, by name."""

from __future__ import annotations

from typing import Final

from tests.fuzz.targets import (
    batches,
    commits,
    configs,
    folders,
    keys,
    names,
    replies,
    reports,
    requests,
    samplers,
    settings,
    signatures,
    tensors,
    tokenizer_files,
)

TARGETS: Final = {
    target.name: target
    for target in (
        requests.TARGET,
        signatures.HEADERS,
        signatures.SIGNED,
        keys.TARGET,
        batches.TARGET,
        replies.TARGET,
        commits.TARGET,
        reports.TARGET,
        configs.TARGET,
        tensors.TARGET,
        folders.TARGET,
        tokenizer_files.TARGET,
        samplers.TARGET,
        settings.TARGET,
        names.TARGET,
    )
}
