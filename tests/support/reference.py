"""The pages of docs/reference/: every metric, setting and error code, in the code's own words.

`python -m tests.support.reference` writes them anew, `--check` says which are not what they should
be (exit code 1); tests/docs/test_reference.py does as well. What a page says stands where the thing
itself stands; here is only its layout.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import SecretStr

from aril.arguments import bounds_of
from aril.commands.groups import worker_groups
from aril.connecting.settings import ENV_PREFIX
from aril.gateway import metrics as gateway
from aril.gateway.settings import PREFIX, GatewaySettings
from aril.schemas import ErrorCode
from aril.worker.observe.metrics import Metrics
from aril.worker.settings import FOREIGN_ENV, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic.fields import FieldInfo

    from aril.worker.observe.metrics.families import Family

FOLDER: Final = Path(__file__).parents[2] / "docs" / "reference"
MADE: Final = "<!-- Made by `make reference` from {source}: change that, not this page. -->"
KINDS: Final = {
    bool: "yes or no",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    SecretStr: "secret",
}


def metrics_page() -> str:
    """Return the page of metrics."""
    parts = [
        "# Metrics",
        MADE.format(source="worker/observe/metrics/ and aril/gateway/metrics.py"),
        (
            "What `/metrics` of a worker tells, in Prometheus' format or OpenMetrics. Which to"
            " watch first: [operating](../operating.md#probes-and-metrics). A counter begins at 0"
            " with each process. Of a histogram the lowest and the highest bound are given."
        ),
    ]
    for title, families in Metrics().families.sections().items():
        rows = [
            (f"`{each.name}`", _kind(each), each.unit, _labels(each), each.text)
            for each in families
        ]
        parts += [f"## {title}", _table(("name", "type", "unit", "labels", "meaning"), rows)]
    rows = [
        (f"`{each.name}`", _kind(each), each.unit, _labels(each), each.text)
        for each in gateway.FAMILIES
    ]
    parts += [
        "## The gateway",
        "Of `aril gateway`, at its own `/metrics`.",
        _table(("name", "type", "unit", "labels", "meaning"), rows),
        "## Python and the operating system",
        (
            "`process_*` (CPU seconds, memory, open files, start time; on Linux) and `python_*`"
            " (version, garbage collection) are those of prometheus-client."
        ),
    ]
    return _page(parts)


def settings_page() -> str:
    """Return the page of settings."""
    parts = [
        "# Settings",
        MADE.format(source="worker/settings.py and aril/gateway/settings.py"),
        (
            "Each setting of a worker has a flag (`--max-rows`; secrets have none), an environment"
            " variable (`ARIL_MAX_ROWS`) and a name in a TOML file (`max_rows`), the strongest"
            " first. An unknown name or a value out of bounds ends the worker with one line and"
            " exit code 2. `aril config` shows what is in force and where each value came from."
        ),
    ]
    for title, names in worker_groups().items():
        rows = [_setting(name, WorkerSettings.model_fields[name]) for name in names]
        heads = ("variable", "type and bounds", "default", "meaning")
        parts += [f"## {title[0].upper()}{title[1:]}", _table(heads, rows)]
    rows = [
        _setting(name, field)
        for name, field in GatewaySettings.model_fields.items()
        if name.startswith(PREFIX)
    ]
    parts += [
        "## The gateway",
        (
            "Of `aril gateway` ([what it is](../gateway.md)), beside how it reaches the queue:"
            " those of the first group from `ARIL_BOOTSTRAP` to `ARIL_SASL_OIDC_SCOPE`."
        ),
        _table(("variable", "type and bounds", "default", "meaning"), rows),
    ]
    others = [(f"`{name}`", text) for name, text in FOREIGN_ENV.items()]
    parts += ["## Variables that are no settings", _table(("variable", "meaning"), others)]
    return _page(parts)


def errors_page() -> str:
    """Return the page of error codes."""
    rows = [
        (f"`{each.value}`", "yes" if each.retryable else "no", each.meaning, each.advice)
        for each in ErrorCode
    ]
    return _page(
        [
            "# Error codes",
            MADE.format(source="schemas/errors.py"),
            (
                "What an `error` record may carry as `code`; the set is closed in version 1 of"
                " [the contract](../../schemas/README.md). `retryable`: the same job under a new id"
                " may succeed with nothing else changed. A `message` is for people and may change."
            ),
            _table(("code", "retryable", "what has happened", "what to do"), rows),
        ]
    )


def pages() -> dict[Path, str]:
    """Return each page with the text that it should have."""
    return {
        FOLDER / "metrics.md": metrics_page(),
        FOLDER / "settings.md": settings_page(),
        FOLDER / "errors.md": errors_page(),
    }


def _kind(family: Family | gateway.Family) -> str:
    if not family.buckets:
        return family.kind
    return f"{family.kind}, {family.buckets[0]:g} to {family.buckets[-1]:g}"


def _labels(family: Family | gateway.Family) -> str:
    return ", ".join(f"`{label}`" for label in family.labels)


def _setting(name: str, field: FieldInfo) -> tuple[str, ...]:
    facts = [_type(field.annotation), _bounds(field), _form(field)]
    told = ", ".join(fact for fact in facts if fact)
    return f"`{ENV_PREFIX}{name.upper()}`", told, _default(field.default), field.description or ""


def _type(annotation: Any) -> str:
    if annotation in KINDS:
        return KINDS[annotation]
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{each}`" for each in inner)
    if get_origin(annotation) is Annotated:
        bounds = [_bounds(each) for each in inner[1:]]
        return ", ".join([_type(inner[0]), *filter(None, bounds)])
    return " or ".join(_type(each) for each in inner if each is not type(None))


def _bounds(field: FieldInfo) -> str:
    return bounds_of(field, below=math.inf).replace("_", ",")


def _form(field: FieldInfo) -> str:
    """Return what a text has to look like."""
    found = []
    for each in field.metadata:
        if (least := getattr(each, "min_length", None)) is not None:
            found.append(f"≥ {least} characters")
        if (most := getattr(each, "max_length", None)) is not None:
            found.append(f"≤ {most} characters")
        if (pattern := getattr(each, "pattern", None)) is not None:
            found.append(f"`{pattern}`")
    return ", ".join(found)


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value in (None, "") else f"`{value}`"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_cell(each) for each in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Return text that ends no cell and begins no tag."""
    return text.replace("|", r"\|").replace("<", "&lt;")


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or check them."""
    stale = [
        path for path, text in pages().items() if not path.is_file() or path.read_text() != text
    ]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(FOLDER.parents[1])}: not current, run `make reference`")
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for path in stale:
        path.write_text(pages()[path])
        print(f"{path.relative_to(FOLDER.parents[1])}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
