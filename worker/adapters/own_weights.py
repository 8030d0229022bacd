"""The backbone's own weights as its folder has them, to compare an adapter's copies with.

PEFT saves the weight of `lm_head` or of the embeddings beside A and B where it takes them for
changed. A copy of what the backbone has anyway need not be kept; another one must not be ignored.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import safetensors
import torch
from torch import Tensor

from aril.worker.adapters.trained_tokens import TokenTables

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"

_VALUES_AT_ONCE: Final = 1 << 22
_FP32_BYTES: Final = 4


class OwnWeights:
    """A model folder's tensors, read when they are asked for. Thread-safe."""

    def __init__(
        self,
        folder: Path,
        tied: Mapping[str, str],
        prefix: str,
        tables: TokenTables | None = None,
    ) -> None:
        """Read of `folder` which file holds what.

        `tied` names for parameters that share another's memory that other one, `prefix` what
        checkpoints of the bare model leave out of all names; `tables` are where its tokens'
        vectors are, if known. Raises OSError.
        """
        self.tables = tables
        self._folder = folder
        self._tied = dict(tied)
        self._prefix = prefix
        index = folder / INDEX
        if index.is_file():
            self._files: dict[str, str] = json.loads(index.read_text())["weight_map"]
        else:
            with safetensors.safe_open(folder / WEIGHTS, "pt") as file:
                self._files = dict.fromkeys(file.keys(), WEIGHTS)

    @classmethod
    def of(cls, folder: Path, model: Any) -> "OwnWeights":
        """Read a folder that transformers has made `model` of, with or without its contents."""
        first: dict[int, str] = {}
        tied = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            original = first.setdefault(id(parameter), name)
            if original != name:
                tied[name] = original
        embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
        paths = {id(module): path for path, module in model.named_modules()}
        tables = None
        if embedding is not None and output is not None:
            tokens, features = embedding.weight.shape
            tables = TokenTables(
                paths[id(embedding)],
                paths[id(output)],
                tokens,
                features,
                tied=output.weight is embedding.weight,
            )
        return cls(folder, tied, f"{model.base_model_prefix}.", tables)

    def equals(self, name: str, copy: Tensor) -> bool | None:
        """Whether a parameter is `copy`, rounded to the coarser type of both; None: no such one.

        Trainers load a backbone in the type of their choice, so either side may be rounded.
        """
        key = self._key(name)
        if key is None:
            return None
        with safetensors.safe_open(self._folder / self._files[key], "pt") as file:
            if list(copy.shape) != file.get_slice(key).get_shape():
                return False
            if copy.ndim == 0:
                return bool(_rounds_to(file.get_tensor(key), copy))
        return not self.changed_rows(name, copy)

    def changed_rows(self, name: str, copy: Tensor) -> tuple[int, ...]:
        """Return where `copy` differs from a parameter of its shape, in the sense of `equals`.

        ValueError where there is none.
        """
        key = self._key(name)
        if key is None:
            raise ValueError(f"the backbone has no {name}")
        rows = max(1, _VALUES_AT_ONCE * len(copy) // max(1, copy.numel()))
        changed: list[int] = []
        with safetensors.safe_open(self._folder / self._files[key], "pt") as file:
            own = file.get_slice(key)
            for start in range(0, len(copy), rows):
                piece = slice(start, start + rows)
                same = _rounds_to(_rows(own[piece]), _rows(copy[piece]))
                changed += (start + (~same).nonzero().flatten()).tolist()
        return tuple(changed)

    def is_table(self, module: str, copy: Tensor) -> bool:
        """Whether a module has a vector for each token, and `copy` the shape of its weight."""
        tables = self.tables
        return (
            tables is not None
            and module in {tables.embedding, tables.output}
            and copy.shape == (tables.tokens, tables.features)
        )

    def is_longer_table(self, module: str, copy: Tensor) -> bool:
        """Whether a module has a vector for each token, and `copy` has more of them."""
        tables = self.tables
        return (
            tables is not None
            and module in {tables.embedding, tables.output}
            and copy.ndim == 2  # noqa: PLR2004 - a matrix
            and len(copy) > tables.tokens
        )

    def read(self, name: str) -> Tensor | None:
        """Return a parameter, in the type of its file; None: no such one."""
        key = self._key(name)
        if key is None:
            return None
        with safetensors.safe_open(self._folder / self._files[key], "pt") as file:
            tensor: Tensor = file.get_tensor(key)
        return tensor

    def max_copy_bytes(self, linears: Iterable[str], experts: Iterable[str] = ()) -> int:
        """Return what copies of all but the model's linears and experts can take, in fp32.

        `experts` are the parameters that hold a layer's experts. A checkpoint may call the layer
        otherwise and keep each expert apart, but below a module of the same name.
        """
        holders = {f".{path.split('.')[-2]}." for path in experts}
        output = None if self.tables is None else self.tables.output
        inner = {f"{path}.weight" for path in linears if path != output}
        names = (set(self._files) | set(self._tied)) - inner
        values = 0
        for name in names:
            key = self._key(name)
            if (
                key is not None
                and f"{self._prefix}{key}" not in inner
                and not any(holder in name for holder in holders)
            ):
                with safetensors.safe_open(self._folder / self._files[key], "pt") as file:
                    values += torch.Size(file.get_slice(key).get_shape()).numel()
        return _FP32_BYTES * values

    def _key(self, name: str) -> str | None:
        for each in (name, self._tied.get(name)):
            if each is not None:
                for key in (each, each.removeprefix(self._prefix)):
                    if key in self._files:
                        return key
        return None


def _rounds_to(own: Tensor, copy: Tensor) -> Tensor:
    """Whether one is the other after rounding: bool, over the last dimension if there is one."""
    same = torch.stack([own.to(copy.dtype) == copy, copy.to(own.dtype) == own])
    return (same.all(-1) if own.ndim else same).any(0)


def _rows(tensor: Tensor) -> Tensor:
    """View a tensor [n, ...] as [n, values of a row]."""
    return tensor.reshape(len(tensor), -1)
