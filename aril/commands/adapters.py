"""`aril adapters`: what an adapter store holds, and what is wrong in it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from aril.arguments import FAILED, OK, UsageError, add_settings, settings_of
from aril.commands.report import table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from aril.commands.backbone import ModelFolder
    from aril.worker.adapters.store import AdapterStore
    from aril.worker.adapters.weights import AdapterWeights
    from aril.worker.settings import WorkerSettings

DESCRIPTION: Final = """\
List an adapter store: <tenant>/<name>/ and shared/<name>/ are PEFT LoRA folders. Every tensor is
read and checked against the backbone, as a worker would when a job asks for it. Exit code 1 if an
adapter cannot be served."""

EXAMPLES: Final = """\
examples:
  aril adapters --model ./model --adapters ./store
  aril adapters --json | jq '.[] | select(.problem)'"""

SHORT_DIGEST: Final = 12
UNITS: Final = ("B", "kB", "MB", "GB")
THOUSAND: Final = 1_000


@dataclass(frozen=True, slots=True)
class Listed:
    """One folder of the store; `problem`: why it cannot be served, `warning`: what to look at."""

    tenant: str
    name: str
    digest: str = ""
    rank: int = 0
    targets: tuple[str, ...] = ()
    size: int = 0
    warning: str | None = None
    problem: str | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("--json", action="store_true", help="one JSON array")
    add_settings(
        parser,
        {
            "what is served": [
                "model",
                "base",
                "base_check",
                "adapters",
                "adapter_templates",
                "max_rank",
                "expert_bytes",
            ]
        },
    )


def run(arguments: argparse.Namespace) -> int:
    """List; return the exit code."""
    settings = settings_of(arguments).settings
    if settings.adapters is None or not settings.model:
        raise UsageError("adapters: needs --adapters and --model (or ARIL_ADAPTERS, ARIL_MODEL)")
    from aril.commands.backbone import (  # noqa: PLC0415 - torch and transformers: seconds
        ModelFolderError,
        read_model_folder,
    )

    try:
        model = read_model_folder(settings.model, settings.base)
    except ModelFolderError as error:
        raise UsageError(f"adapters: {error}") from None
    if not settings.adapters.is_dir():
        raise UsageError(f"adapters: {settings.adapters} is not a folder")
    found = list_store(settings.adapters, model, settings)
    if arguments.json:
        print(json.dumps([asdict(entry) for entry in found], indent=2))
    else:
        _print(found)
    return FAILED if any(entry.problem for entry in found) else OK


def list_store(root: Path, model: ModelFolder, settings: WorkerSettings) -> list[Listed]:
    """Read and check every adapter of a store, in order of tenant and name."""
    from aril.worker.adapters.store import AdapterStore  # noqa: PLC0415 - imports torch
    from aril.worker.loading import slot_value_bytes  # noqa: PLC0415 - as above

    store = AdapterStore(
        root,
        base_model=model.name,
        linear_shapes=model.linear_shapes,
        max_rank=settings.max_rank,
        base_check=settings.base_check,
        own=model.own_weights,
        parameters=model.parameter_shapes,
        tokenizer=model.tokenizer,
        templates=settings.adapter_templates,
        max_expert_values=settings.expert_bytes // slot_value_bytes(settings),
    )
    return [_read(store, home, folder) for home, folder in _folders(root)]


def _folders(root: Path) -> Iterator[tuple[Path, Path]]:
    for home in sorted(root.resolve().iterdir()):
        if home.is_dir() and not home.name.startswith("."):
            for folder in sorted(home.iterdir()):
                if not folder.name.startswith("."):
                    yield home, folder


def _read(store: AdapterStore, home: Path, folder: Path) -> Listed:
    from aril.schemas import SHARED, JobError, is_adapter, is_tenant  # noqa: PLC0415 - as above
    from aril.worker.adapters.faults import AdapterFault  # noqa: PLC0415 - as above
    from aril.worker.adapters.folder import AdapterFolder  # noqa: PLC0415 - as above
    from aril.worker.adapters.store import AdapterRef, Owner  # noqa: PLC0415 - as above

    listed = Listed(home.name, folder.name)
    if home.name != SHARED and not is_tenant(home.name):
        return _with(listed, problem="the folder above it is not a tenant's name")
    if not is_adapter(folder.name) or "@" in folder.name:
        return _with(listed, problem="not an adapter's name (lower case, digits, -)")
    try:
        place = AdapterFolder.find(home, folder.name)
        assert place is not None  # noqa: S101 - it has just been listed
        owner: Owner = "shared" if home.name == SHARED else "tenant"
        weights = store.load(AdapterRef(folder.name, owner, place, digest=""))
    except (AdapterFault, JobError) as error:
        text = error.message if isinstance(error, JobError) else str(error)
        return _with(listed, problem=text.removeprefix(f"adapter {folder.name}: "))
    return Listed(
        home.name,
        folder.name,
        digest=weights.digest,
        rank=weights.rank,
        targets=tuple(
            sorted({module.rpartition(".")[2] for module in (*weights.modules, *weights.experts)})
        ),
        size=sum(file.stat().st_size for file in place.path.iterdir() if file.is_file()),
        warning=_warning(weights),
    )


def _warning(weights: AdapterWeights) -> str | None:
    told = [weights.warning] if weights.warning else []
    return "; ".join([*told, *(remark.text for remark in weights.remarks)]) or None


def _with(listed: Listed, *, problem: str) -> Listed:
    return Listed(listed.tenant, listed.name, problem=problem)


def _print(found: list[Listed]) -> None:
    rows = [
        (
            entry.tenant,
            entry.name,
            entry.digest[:SHORT_DIGEST] or "-",
            str(entry.rank or "-"),
            _human(entry.size) if entry.size else "-",
            _remark(entry),
        )
        for entry in found
    ]
    print(table(("TENANT", "ADAPTER", "DIGEST", "RANK", "SIZE", "TARGETS"), rows))


def _remark(entry: Listed) -> str:
    if entry.problem:
        return f"✗ {entry.problem}"
    targets = " ".join(entry.targets)
    return f"{targets}  ! {entry.warning}" if entry.warning else targets


def _human(size: float) -> str:
    for unit in UNITS[:-1]:
        if size < THOUSAND:
            return f"{size:.3g} {unit}"
        size /= THOUSAND
    return f"{size:.3g} {UNITS[-1]}"
