"""A worker's settings, from the environment and from its file."""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from annotated_types import Ge, Gt, Le, Lt

from aril.worker.settings import SettingsError, WorkerSettings, load_settings
from aril.worker.topics.subscription import topic_pattern
from tests.fuzz.mutate import INTEGERS, TEXTS, bend, chance, pick
from tests.fuzz.surroundings import memory_folder
from tests.fuzz.target import ACCEPTED, Target, holds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

_FIELDS: Final = tuple(WorkerSettings.model_fields)
_NUMBERS: Final = ("inf", "-inf", "nan", "Infinity", "1e999", "1e3", "1_000", " 7 ", "0x10", "1.0")
_WORDS: Final = (
    *(
        "on",
        "off",
        "true",
        "0",
        "",
        "topic",
        "signature",
        "field",
        "jobs.*",
        "*",
        "jobs",
        "replies.",
    ),
    *(
        "consolidate",
        "SSL",
        "cuda:0",
        "127.0.0.1:0",
        "[::1]:8080",
        ":80",
        "h:65536",
        "h:²",
        "h:\u0661",
    ),
    *(
        "replies.x",
        "replies.*",
        "r*",
        "9" * 5_000,
        "h:" + "9" * 5_000,
        "\udcff",
        "{}",
        '["a"]',
        "auto",
    ),
)
_folder: list[Path] = []


class Case(NamedTuple):
    """Variables of the environment, and the text of the file that one of them names."""

    variables: dict[str, str]
    toml: bytes | None


def _make(rng: Random) -> Case:
    variables = {}
    for _ in range(pick(rng, (1, 1, 2, 4))):
        name = f"ARIL_{pick(rng, _FIELDS).upper()}"
        if chance(rng, 0.05):
            name = (
                bend(rng, name.encode(), 1)
                .replace(b"\0", b"_")
                .replace(b"=", b"_")
                .decode(errors="replace")
            )
        variables[name or "ARIL_"] = _value(rng)
    toml = None
    if chance(rng, 0.4):
        lines = [f"{pick(rng, _FIELDS)} = {_literal(rng)}" for _ in range(pick(rng, (1, 1, 3)))]
        toml = "\n".join(lines).encode(errors="replace")
        if chance(rng, 0.3):
            toml = bend(rng, toml)
    return Case(variables, toml)


def _value(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return str(pick(rng, INTEGERS))
    if kind < 0.5:
        return pick(rng, _NUMBERS)
    text: str = pick(rng, _WORDS if kind < 0.8 else TEXTS)
    return text.replace("\0", "\\0")


def _literal(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.4:
        return str(pick(rng, INTEGERS))
    if kind < 0.6:
        return pick(rng, ("inf", "nan", "-inf", "1e400", "true", "[]", "{}", "1979-05-27", "0.5"))
    if kind < 0.62:
        return "[" * pick(rng, (3, 2_000)) + "]"
    return '"' + pick(rng, (*_WORDS, *TEXTS, "\\u0000", "\\n")).replace('"', "") + '"'


def _check(case: Case) -> str:
    variables = dict(case.variables)
    if case.toml is not None:
        path = _folder[-1] / "aril.toml"
        path.write_bytes(case.toml)
        variables["ARIL_CONFIG"] = str(path)
    os.environ.update(variables)
    try:
        loaded = load_settings()
    except SettingsError as error:
        said = str(error)
        holds(said and len(said.splitlines()) == 1, "what is wrong is said in one line")
        holds(len(said) < 1_500, "which is short")
        name = said.partition(":")[0]
        return f"bad {name}"[:40] if name.isascii() and name.isidentifier() else "bad"
    finally:
        for name in variables:
            os.environ.pop(name, None)
    settings = loaded.settings
    for name, about in WorkerSettings.model_fields.items():
        _within(name, getattr(settings, name), about.metadata)
    holds(len(loaded.rows()) == len(_FIELDS), "each can be shown")
    address = settings.http_address
    holds(address is None or 0 <= address[1] <= 65_535, "a port is a port")
    pattern = topic_pattern(settings.jobs_topic, settings.dlq_topic)
    for reads in (pattern.pattern if pattern else settings.jobs_topic,):
        holds(reads, "there is something to read")
    holds(pattern is None or not pattern.fullmatch(settings.dlq_topic), "not its own dead letters")
    return ACCEPTED


def _within(name: str, value: Any, bounds: list[Any]) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    holds(math.isfinite(value), f"{name} is finite")
    for bound in bounds:
        if isinstance(bound, Ge):
            holds(value >= bound.ge, f"{name} has a least")  # type: ignore[operator]
        if isinstance(bound, Gt):
            holds(value > bound.gt, f"{name} has a least")  # type: ignore[operator]
        if isinstance(bound, Le):
            holds(value <= bound.le, f"{name} has a most")  # type: ignore[operator]
        if isinstance(bound, Lt):
            holds(value < bound.lt, f"{name} has a most")  # type: ignore[operator]


@contextmanager
def _around() -> Iterator[None]:
    kept = {name: value for name, value in os.environ.items() if name.startswith("ARIL_")}
    for name in kept:
        del os.environ[name]
    with memory_folder() as folder:
        _folder.append(folder)
        try:
            yield
        finally:
            _folder.pop()
            os.environ.update(kept)


TARGET: Final = Target(
    name="settings",
    about="settings from environment and file: aril.worker.settings.load_settings",
    share=60,
    make=_make,
    check=_check,
    size=lambda case: sum(map(len, case.variables.values())) + len(case.toml or b""),
    factor=128,
    around=_around,
)
