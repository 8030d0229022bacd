"""What the commands share: exit codes, a parser that fails in one line, flags made from settings.

A flag's name, help, default and bounds are read off the pydantic field that it sets, so they exist
once: `aril.worker.settings.WorkerSettings` for settings, `aril.schemas.Sampling` for how tokens are
chosen.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic.fields import FieldInfo

    from aril.connecting.loading import LoadedSettings, Settings
    from aril.connecting.settings import ConnectionSettings
    from aril.worker.settings import WorkerSettings

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


def add_settings(
    parser: argparse.ArgumentParser,
    groups: Mapping[str, Iterable[str]],
    kind: type[ConnectionSettings] | None = None,
) -> None:
    """Add a flag for each named field of `kind`, by default of a worker's, and `--config`."""
    from pydantic import SecretStr  # noqa: PLC0415 - 0.15 s that `aril --help` need not wait for

    from aril.connecting.settings import ENV_PREFIX  # noqa: PLC0415 - as above

    fields = _worker_settings().model_fields if kind is None else kind.model_fields
    for title, names in groups.items():
        group = parser.add_argument_group(title)
        for name in names:
            field = fields[name]
            if field.annotation == SecretStr | None:
                continue  # a flag would show it to everybody on the machine
            _add_flag(group, name, field, env=f"{ENV_PREFIX}{name.upper()}")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file of settings, weaker than environment and flags [env ARIL_CONFIG]",
    )


def _worker_settings() -> type[WorkerSettings]:
    from aril.worker.settings import WorkerSettings  # noqa: PLC0415 - as above, and the service's

    return WorkerSettings


def settings_of(arguments: argparse.Namespace) -> LoadedSettings[WorkerSettings]:
    """Return the worker's settings out of flags, environment and file. Raises `UsageError`."""
    from aril.worker.settings import load_settings  # noqa: PLC0415 - as above

    return loaded(_worker_settings(), load_settings, arguments)


def connection_of(arguments: argparse.Namespace) -> ConnectionSettings:
    """Return where the brokers are, of a command that a client alone has. Raises `UsageError`."""
    from aril.connecting.loading import load, not_ours  # noqa: PLC0415 - as above
    from aril.connecting.settings import ConnectionSettings  # noqa: PLC0415 - as above

    own = functools.partial(load, ConnectionSettings, foreign=not_ours(ConnectionSettings))
    return loaded(ConnectionSettings, own, arguments).settings


def loaded(
    kind: type[Settings],
    loading: Callable[..., LoadedSettings[Settings]],
    arguments: argparse.Namespace,
) -> LoadedSettings[Settings]:
    """Return settings of one kind out of flags, environment and file. Raises `UsageError`."""
    from aril.connecting.loading import SettingsError  # noqa: PLC0415 - as above

    flags = {name: getattr(arguments, name, None) for name in kind.model_fields}
    try:
        return loading(flags=flags, config=arguments.config)
    except SettingsError as error:
        raise UsageError(str(error)) from None


def security_of(settings: ConnectionSettings) -> dict[str, Any]:
    """Return what aiokafka's clients need to speak to the brokers. Raises `UsageError`."""
    from aril.connecting.errors import SecurityError  # noqa: PLC0415 - as above

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
