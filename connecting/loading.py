"""Settings out of flags, environment, a TOML file and defaults, and where each value came from.

Several kinds of processes read the same file and environment, each its own settings: what is
unknown to one may be another's, which the one says by `foreign`. All else is refused.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from pydantic import SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource

from aril.connecting.settings import ENV_PREFIX, ConnectionSettings, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Origin = Literal["flag", "env", "file", "default"]
Settings = TypeVar("Settings", bound=ConnectionSettings)

_SHOWN: Final = 200  # characters of a name that nobody knows
_ALIKE: Final = 0.85  # of a name that is another's, by difflib: from here on it is a slip of ours


class SettingsError(Exception):
    """A setting is unknown or has a bad value; the message is one line and names it."""


@dataclass(frozen=True)
class LoadedSettings(Generic[Settings]):
    """Settings with the source each value came from."""

    settings: Settings
    origins: Mapping[str, Origin]

    def rows(self) -> list[tuple[str, str, Origin]]:
        """Return (name, value, origin) of every setting, secrets as ``***``."""
        shown = []
        for name in type(self.settings).model_fields:
            value = getattr(self.settings, name)
            text = "***" if isinstance(value, SecretStr) else "" if value is None else str(value)
            shown.append((name, text, self.origins[name]))
        return shown


def load(
    kind: type[Settings],
    *,
    foreign: Callable[[str, str | None], bool],
    flags: Mapping[str, Any] | None = None,
    config: Path | None = None,
) -> LoadedSettings[Settings]:
    """Merge flags over environment over file over defaults.

    ``flags`` maps field names to values (text is parsed); None means "not given". ``config``
    overrides ``ARIL_CONFIG``. ``foreign`` is asked of a name that `kind` has not, as a field is
    named, and of its value in the environment (None: it is in the file). Raises `SettingsError`
    with one line.
    """
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = dict.fromkeys(kind.model_fields, "default")
    named = os.environ.get("ARIL_CONFIG")
    path = config or (Path(named) if named else None)
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    layers: tuple[tuple[Origin, dict[str, Any]], ...] = (
        ("file", _from_file(kind, foreign, path) if path else {}),
        ("env", _from_env(kind, foreign)),
        ("flag", given),
    )
    for origin, layer in layers:
        values |= layer
        origins |= dict.fromkeys(layer, origin)
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        raise SettingsError(one_line(error, lambda name: _shown(name, origins))) from None
    return LoadedSettings(settings, origins)


def not_ours(kind: type[ConnectionSettings]) -> Callable[[str, str | None], bool]:
    """Return a `foreign` for a kind that others' settings surround: only slips are refused."""

    def foreign(name: str, _: str | None) -> bool:
        return not difflib.get_close_matches(name, kind.model_fields, n=1, cutoff=_ALIKE)

    return foreign


def _from_env(
    kind: type[ConnectionSettings], foreign: Callable[[str, str | None], bool]
) -> dict[str, Any]:
    for name, value in os.environ.items():
        field = name.removeprefix(ENV_PREFIX).lower()
        if (
            name.startswith(ENV_PREFIX)
            and name != "ARIL_CONFIG"
            and field not in kind.model_fields
            and not foreign(field, value)
        ):
            why = f"unknown setting{_did_you_mean(kind, field, env=True)}"
            raise SettingsError(f"{_plain(name)}: {why}")
    return EnvSettingsSource(kind)()


def _from_file(
    kind: type[ConnectionSettings], foreign: Callable[[str, str | None], bool], path: Path
) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except RecursionError:
        raise SettingsError(f"{path}: not TOML: nested too deep") from None
    except ValueError as error:  # of TOML, of UTF-8, of numbers that are too long
        raise SettingsError(f"{path}: not TOML: {_plain(str(error))}") from None
    for name in values.keys() - kind.model_fields.keys():
        if not foreign(name, None):
            why = f"unknown setting{_did_you_mean(kind, name, env=False)}"
            raise SettingsError(f"{path}: {_plain(name)}: {why}")
    return {name: value for name, value in values.items() if name in kind.model_fields}


def _plain(text: str) -> str:
    """Return what may stand in one line, and is not too long for it."""
    shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[:_SHOWN])
    return shown if len(text) <= _SHOWN else f"{shown}…"


def _did_you_mean(kind: type[ConnectionSettings], name: str, *, env: bool) -> str:
    close = difflib.get_close_matches(name, kind.model_fields, n=1)
    if not close:
        return " (`aril config` lists all)"
    return f", did you mean {ENV_PREFIX + close[0].upper() if env else close[0]}?"


def _shown(name: str, origins: Mapping[str, Origin]) -> str:
    origin = origins.get(name, "flag")
    return {
        "env": f"{ENV_PREFIX}{name.upper()}",
        "flag": "--" + name.replace("_", "-"),
    }.get(origin, name)
