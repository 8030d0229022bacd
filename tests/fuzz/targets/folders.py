"""A tenant's adapter folder, with links that lead elsewhere."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.schemas import JobError
from aril.worker.adapters import AdapterStore
from tests.fuzz.mutate import TEXTS, chance, pick
from tests.fuzz.surroundings import memory_folder
from tests.fuzz.target import ACCEPTED, Target, holds, told
from tests.fuzz.targets.configs import config_bytes
from tests.fuzz.targets.tensors import Files, adapter_files
from tests.support.adapter_folders import SHAPES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random


_home: list[Path] = []


@contextmanager
def _store_around() -> Iterator[None]:
    with memory_folder() as root:
        (root / "acme" / "tuned").mkdir(parents=True)
        (root / "shared").mkdir()
        _home.append(root)
        try:
            yield
        finally:
            _home.pop()


class _Folder(NamedTuple):
    """A folder, the name that it is asked for by, and how its files are there."""

    files: Files
    name: str
    config_is: str
    model_is: str


def _make_folder(rng: Random) -> _Folder:
    kinds = ("file", "file", "file", "file", "missing", "folder", "link", "loop", "out", "pickle")
    name = pick(rng, ("tuned", "tuned", "tuned@" + "0f" * 32, "other", "../acme/tuned", *TEXTS))
    files = adapter_files(rng)
    if chance(rng, 0.3):
        files = Files(config_bytes(rng), files.model)
    return _Folder(files, "tuned" if chance(rng, 0.8) else name, pick(rng, kinds), pick(rng, kinds))


def _check_folder(case: _Folder) -> str:
    root = _home[-1]
    folder = root / "acme" / "tuned"
    _lay(folder / "adapter_config.json", case.files.config, case.config_is)
    _lay(folder / "adapter_model.safetensors", case.files.model, case.model_is)
    # A new store: one that has seen a version of a file does not read it again.
    store = AdapterStore(root, base_model="acme/tiny", linear_shapes=SHAPES, max_rank=8)
    try:
        ref = store.find("acme", case.name)
        holds(ref.folder.path == folder, "what is found is in its owner's folder")
        weights = store.load(ref)
        holds(weights.digest == ref.digest, "what is read is what was found")
        exact = store.find("acme", f"tuned@{weights.digest}")
        holds(exact.digest == weights.digest, "a digest finds its content")
    except JobError as error:
        return told(error)
    else:
        return ACCEPTED
    finally:
        for each in folder.iterdir():
            each.rmdir() if each.is_dir() and not each.is_symlink() else each.unlink()


def _lay(path: Path, data: bytes, kind: str) -> None:
    if kind == "file":
        path.write_bytes(data)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        place = path.with_suffix(".stored")
        place.write_bytes(data)
        path.symlink_to(place.name)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "out":
        path.symlink_to(os.devnull)
    elif kind == "pickle":
        path.with_name("adapter_model.bin").write_bytes(data)


TARGET: Final = Target(
    name="folders",
    about="adapter folders, with links that lead elsewhere: aril.worker.adapters.store",
    share=60,
    make=_make_folder,
    check=_check_folder,
    size=lambda case: len(case.files.config) + len(case.files.model),
    factor=128,
    around=_store_around,
)
