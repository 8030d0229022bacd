"""Which modules a configuration adapts: `target_modules` and what narrows it, as PEFT reads them.

Names and endings are compared here. Regular expressions come from tenants and say nothing that the
tensors do not, so they are not run: where one decides, the answer is None.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aril.worker.adapters.faults import AdapterFault, quoted

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.]+")
_MAX_NAMES: Final = 16  # of those that are matched one by one
_FIRST_INDEX: Final = re.compile(r".*?\.[^.]*\.(\d+)\.")  # PEFT's: the first number in a path


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The fields that say which modules have tensors."""

    names: frozenset[str] | None
    """Paths of modules, or endings of them; None where the configuration gives no list."""
    excluded: frozenset[str]
    """The same for those that are left out."""
    excluded_by_regex: bool
    layers: frozenset[int] | None
    """Numbers of layers; None: all."""
    layer_lists: tuple[str, ...]
    """What the list of layers may be called; empty: anything."""
    saved: tuple[str, ...]
    """Parts of paths of modules that are saved whole, and so have no LoRA."""

    def includes(self, module: str) -> bool | None:
        """Whether PEFT would adapt `module`; None where only a regular expression would tell."""
        if _ends_in(module, self.excluded) or self.saves(module):
            return False
        if self.names is None:
            return None
        if module in self.names:  # PEFT does not look at the layer's number then
            return None if self.excluded_by_regex else True
        if not _ends_in(module, self.names):
            return False
        within = self._within_layers(module)
        return None if within and self.excluded_by_regex else within

    def saves(self, module: str) -> bool:
        """Whether `module` is saved whole."""
        return any(_is_part(name, module) for name in self.saved)

    def unsaved(self, copied: Iterable[str]) -> list[str]:
        """Return the names of `modules_to_save` that none of these modules goes by."""
        return [name for name in self.saved if not any(_is_part(name, each) for each in copied)]

    def _within_layers(self, module: str) -> bool | None:
        if self.layers is None:
            return True
        if not all(_PLAIN.fullmatch(name) for name in self.layer_lists):
            return None
        if self.layer_lists:
            patterns = (rf"(?:^|.*?\.){name}\.(\d+)\." for name in self.layer_lists)
            found = next(filter(None, (re.match(each, module) for each in patterns)), None)
        else:
            found = _FIRST_INDEX.match(module)
        return found is not None and int(found[1]) in self.layers


def read_targets(fields: Mapping[str, Any]) -> Targets:
    """Read the fields; AdapterFault names the first that is not of PEFT's types."""
    names, excluded = fields.get("target_modules"), fields.get("exclude_modules")
    saved = _strings("modules_to_save", fields.get("modules_to_save") or [])
    lists = fields.get("layers_pattern") or []
    lists = (lists,) if isinstance(lists, str) else _strings("layers_pattern", lists)
    for field, given in (("modules_to_save", saved), ("layers_pattern", lists)):
        if len(given) > _MAX_NAMES:
            raise AdapterFault(f"{field} has too many names", limit=_MAX_NAMES, given=len(given))
    for name in saved:
        if not _PLAIN.fullmatch(name):
            raise AdapterFault(f"modules_to_save has {quoted(name)}, not a plain name")
    return Targets(
        names=None
        if names is None or isinstance(names, str)  # a regular expression, or "all-linear"
        else frozenset(_strings("target_modules", names)),
        excluded=frozenset()
        if excluded is None or isinstance(excluded, str)
        else frozenset(_strings("exclude_modules", excluded)),
        excluded_by_regex=isinstance(excluded, str) and bool(excluded),
        layers=_layers(fields.get("layers_to_transform")),
        layer_lists=lists,
        saved=saved,
    )


def _ends_in(module: str, endings: frozenset[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[start:]) in endings for start in range(len(parts)))


def _is_part(name: str, module: str) -> bool:
    return re.match(rf"(^|.*\.){name}($|\..*)", module) is not None  # PEFT's own rule


def _strings(field: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise AdapterFault(f"{field} is neither a string nor a list of strings")
    return tuple(value)


def _layers(value: object) -> frozenset[int] | None:
    numbers = [value] if isinstance(value, int) else value
    if numbers is None or numbers == []:
        return None
    if not isinstance(numbers, list) or any(
        not isinstance(number, int) or isinstance(number, bool) for number in numbers
    ):
        raise AdapterFault(f"layers_to_transform is {quoted(value)}, not numbers of layers")
    return frozenset(numbers)
