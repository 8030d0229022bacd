"""What the commands share: exit codes, a parser that fails in one line, flags made from settings.

A flag's name, help, default and bounds are read off the pydantic field that it sets, so they exist
once: `worker.settings.WorkerSettings` for settings, `schemas.Sampling` for how tokens are chosen.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.fields import FieldInfo

    from connecting.settings import ConnectionSettings
    from worker.settings import LoadedSettings

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

# A bound this far out tells nobody anything.
UNREMARKABLE: Final = 10**9

CONNECTION: Final = (
    "bootstrap",
    "jobs_topic",
    "replies_prefix",
    "security_protocol",
    "ssl_cafile",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_key_password",
    "sasl_mechanism",
    "sasl_username",
    "sasl_password",
    "sasl_token_provider",
    "sasl_token_file",
    "sasl_oidc_url",
    "sasl_oidc_client_id",
    "sasl_oidc_client_secret",
    "sasl_oidc_scope",
)


class UsageError(Exception):
    """The command line or a setting is wrong; the message is one line."""


class Parser(argparse.ArgumentParser):
    """A parser whose every mistake is one line and exit code 2."""

    def __init__(self, **options: Any) -> None:
        """Prepare; `options` as for ArgumentParser."""
        options.setdefault("formatter_class", _Help)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` instead of printing the usage."""
        command = self.prog.removeprefix("aril ")
        raise UsageError(f"{command}: {message} (aril {command} --help)")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Descriptions and examples as they are written, options beside their text."""

    def __init__(self, prog: str) -> None:
        width = min(100, int(os.environ.get("COLUMNS", "100")))
        super().__init__(prog, max_help_position=28, width=width)


def add_settings(parser: argparse.ArgumentParser, groups: Mapping[str, Iterable[str]]) -> None:
    """Add a flag for each named field of the worker's settings, and `--config`."""
    from pydantic import SecretStr  # noqa: PLC0415 - as below

    from connecting.settings import ENV_PREFIX  # noqa: PLC0415 - as below
    from worker.settings import (  # noqa: PLC0415 - 0.15 s that `aril --help` need not wait for
        WorkerSettings,
    )

    for title, names in groups.items():
        group = parser.add_argument_group(title)
        for name in names:
            field = WorkerSettings.model_fields[name]
            if field.annotation == SecretStr | None:
                continue  # a flag would show it to everybody on the machine
            _add_flag(group, name, field, env=f"{ENV_PREFIX}{name.upper()}")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file of settings, weaker than environment and flags [env ARIL_CONFIG]",
    )


def settings_of(arguments: argparse.Namespace) -> LoadedSettings:
    """Return the settings that flags, environment and file make. Raises `UsageError`."""
    from worker.settings import (  # noqa: PLC0415 - as above
        SettingsError,
        WorkerSettings,
        load_settings,
    )

    flags = {name: getattr(arguments, name, None) for name in WorkerSettings.model_fields}
    try:
        return load_settings(flags=flags, config=arguments.config)
    except SettingsError as error:
        raise UsageError(str(error)) from None


def security_of(settings: ConnectionSettings) -> dict[str, Any]:
    """Return what aiokafka's clients need to speak to the brokers. Raises `UsageError`."""
    from connecting.errors import SecurityError  # noqa: PLC0415 - as above

    try:
        return settings.kafka_security()
    except SecurityError as error:
        raise UsageError(str(error)) from None


def quiet_libraries() -> None:
    """Keep aiokafka's log off the terminal: what matters of it we say in our own words."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def add_fields(
    parser: argparse.ArgumentParser,
    title: str,
    fields: Mapping[str, FieldInfo],
    texts: Mapping[str, str],
) -> None:
    """Add a flag for each field of a model, `texts` saying what it does."""
    group = parser.add_argument_group(title)
    for name, field in fields.items():
        _add_flag(group, name, field, text=texts[name])


def _add_flag(
    group: argparse._ArgumentGroup,
    name: str,
    field: FieldInfo,
    *,
    env: str | None = None,
    text: str | None = None,
) -> None:
    flag = "--" + name.replace("_", "-")
    shown = _help(text or field.description or "", field, env)
    options: dict[str, Any] = {"dest": name, "default": None, "help": shown}
    if field.annotation is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif get_origin(field.annotation) is tuple:
        options |= {"action": "append", "metavar": _metavar(get_args(field.annotation)[0])}
        options["help"] += "; may be repeated"
    else:
        options["metavar"] = _metavar(field.annotation)
    group.add_argument(flag, **options)


def _help(text: str, field: FieldInfo, env: str | None) -> str:
    default = field.default
    facts = [env and f"env {env}", bounds_of(field)]
    if default not in (None, "", ()) and not isinstance(default, bool):
        facts.append(f"default {default}")
    told = "; ".join(fact for fact in facts if fact)
    return (text.rstrip(".") + (f" [{told}]" if told else "")).replace("%", "%%")


def bounds_of(field: FieldInfo, *, below: float = UNREMARKABLE) -> str:
    """Return a field's bounds as people write them, but for those that are as far out."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(limit, name):,}".replace(",", "_")
        for limit in field.metadata
        for name, sign in signs.items()
        if getattr(limit, name, None) is not None and abs(getattr(limit, name)) < below
    ]
    return ", ".join(found)


def _metavar(annotation: Any) -> str:
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(annotation) is Literal:
        return "{" + ",".join(map(str, get_args(annotation))) + "}"
    kind = kinds[0] if kinds and get_origin(annotation) is not tuple else annotation
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    names = {int: "N", float: "X", Path: "PATH"}
    return names.get(kind, "TEXT")
