"""The tables of docs/sgmv.md, written between their markers from the CSVs: nobody types a figure.

What stands between a line ``<!-- table: NAME -->`` and the next ``<!-- end -->`` is replaced.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from benchmarks.gpu.providers import OURS
from benchmarks.gpu.workloads import LLAMA_8B, PUNICA, Workload, parse_config, segment_sizes
from benchmarks.plots import attention, bytes, peers, ratios, runs  # noqa: A004 - ours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from benchmarks.plots.style import Span
    from benchmarks.record import Row

ROWS = 64
END = "<!-- end -->"
UNMEASURED = "Not measured yet."
NONE = "–"  # noqa: RUF001 - a dash is meant
# Metrics that stand for a time that there is none of, and how a table says so.
REASONS = {"wrong": "wrong", "failed: ": "failed", "device lost: ": "device lost"}


def write(results: Path, document: Path, images: Path) -> None:
    """Write all tables into a document. Raises ValueError where a marker is missing."""
    before = document.read_text(encoding="utf-8")
    after = filled(before, results, images)
    if after != before:
        document.write_text(after, encoding="utf-8")
    print(f"tables of {document.name}: {'written' if after != before else 'as they were'}")


def filled(text: str, results: Path, images: Path) -> str:
    """Return a document with its tables made anew; pictures that are in ``images`` go with them.

    Raises ValueError where a marker is missing.
    """
    for name, (table, pictures) in TABLES.items():
        try:
            content = table(results)
        except FileNotFoundError:
            content = UNMEASURED
        else:
            shown = [
                f"![{words}](images/{picture}.png)\n\n"
                for picture, words in pictures.items()
                if (images / f"{picture}.png").is_file()
            ]
            content = "".join(shown) + content
        begin = f"<!-- table: {name} -->\n"
        if text.count(begin) != 1:
            raise ValueError(f"the document has no place for the table {name!r}, or several")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{content}\n\n{rest[rest.index(END) :]}"
    return text


def ways(results: Path) -> str:
    """Tell the ways' times over SGMV's on a CPU, and their bytes over SGMV's."""
    measured = bytes.on_cpu(results)
    head = ["workload", "adapters"]
    for name in bytes.WAYS:
        head += [name, "by bytes"] if name in bytes.COUNTED else [name]
    lines = []
    for workload, curves in measured.curves.items():
        cells = [str(workload), str(len(segment_sizes(workload, ROWS)))]
        for name in bytes.WAYS:
            cells.append(_span(curves[name][ROWS]))
            if name in bytes.COUNTED:
                count = bytes.COUNTED[name]
                ratio = bytes.bytes_ratio(count, workload, ROWS, measured.element_bytes)
                cells.append(f"{ratio:.1f}")
        lines.append(cells)
    return _table(head, lines)


def operator(results: Path) -> str:
    """Tell the others' times over ours for 64 rows. Raises FileNotFoundError."""
    rows = runs.newest(results, "sgmv_gpu")
    times = runs.times_of(rows)
    missing = _reasons(rows)
    names = _present(rows, peers.LOOKS)
    lines = []
    for layer in (PUNICA, *LLAMA_8B):
        for workload in Workload:
            key = runs.decode_key(workload, layer, ROWS)
            if key in times:
                first = [str(workload), f"{layer.name}, {layer.sizes}"]
                lines.append([*first, *_against(key, times, names, missing)])
    said = f"{ROWS} rows of rank {runs.RANK}, time in a CUDA graph with cold L2. {_OVER}"
    return f"{_origin(rows)}: {said}\n\n" + _table(
        ["workload", "layer", f"{OURS}, µs", *names], lines
    )


def attending(results: Path) -> str:
    """Tell the others' times of attention over ours. Raises FileNotFoundError."""
    rows = runs.newest(results, "attention_gpu")
    times = runs.times_of(rows)
    missing = _reasons(rows)
    names = _present(rows, attention.LOOKS)
    lines = [
        [key[0].partition(";")[0], *_against(key, times, names, missing)]
        for key in times
        if f"; {attention.HEADS} heads" in key[0]
    ]
    said = f"{attention.HEADS} heads, time in a CUDA graph with cold L2. {_OVER}"
    return f"{_origin(rows)}: {said}\n\n" + _table(["batch", f"{OURS}, µs", *names], lines)


def layer(results: Path) -> str:
    """Tell what adapters add to a layer's linears. Raises FileNotFoundError."""
    rows = runs.newest(results, "layer_gpu")
    added = {
        (row.config, row.provider): row for row in rows if row.metric == "added to the linears"
    }
    missing = _reasons(rows)
    names = [
        name for name in dict.fromkeys(row.provider for row in rows) if name != "linears alone"
    ]
    lines = []
    for config, x in dict.fromkeys((row.config, row.x) for row in rows):
        cells = [parse_config(config)["workload"]]
        for name in names:
            row = added.get((config, name))
            if row is None:
                cells.append(missing.get((config, x, name), NONE))
            else:
                cells.append(f"{row.p50:.1f} ({row.p20:.1f} to {row.p80:.1f})")
        lines.append(cells)
    said = f"{rows[-1].x} rows, what adapters add to an 8B layer's linears, %."
    return f"{_origin(rows)}: {said}\n\n" + _table(["workload", *names], lines)


_OVER = (
    f"The others' p50 over that of `{OURS}`: over 1, ours is faster; "
    f"{NONE}: not measured, or not for it."
)


def _against(
    key: tuple[str, str],
    times: runs.Times,
    names: Sequence[str],
    missing: dict[tuple[str, str, str], str],
) -> list[str]:
    """Write one case: our time, then each other's over it."""
    own = times[key].get(OURS)
    over = ratios.over_ours(times[key])
    cells = [missing.get((*key, OURS), NONE) if own is None else f"{own.p50:.3g}"]
    for name in names:
        ratio = over.get(name)
        cells.append(missing.get((*key, name), NONE) if ratio is None else f"{ratio.p50:.2f}")
    return cells


def _reasons(rows: Iterable[Row]) -> dict[tuple[str, str, str], str]:
    """Say in a word why a provider has no time in a case."""
    return {
        (row.config, row.x, row.provider): word
        for row in rows
        for start, word in REASONS.items()
        if row.metric.startswith(start)
    }


def _present(rows: Iterable[Row], looks: Iterable[str]) -> list[str]:
    found = {row.provider for row in rows}
    return [name for name in looks if name in found]


def _origin(rows: Sequence[Row]) -> str:
    day = dt.date.fromisoformat(rows[-1].date)
    return f"`python -m benchmarks.gpu`, {rows[-1].device}, {day.day} {day:%B %Y}"


def _span(span: Span) -> str:
    return f"{span.p50:.2f} ({span.p20:.2f} to {span.p80:.2f})"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


# Name in the document: what makes it, and the pictures above it with their words.
TABLES: dict[str, tuple[Callable[[Path], str], dict[str, str]]] = {
    "ways": (ways, {}),
    "operator": (
        operator,
        {
            "sgmv-peers": "Times of vLLM's and SGLang's operators over Aril's on Punica's shape",
            "sgmv-peers-qkv": "The same on the fused q, k, v of an 8B model",
        },
    ),
    "layer": (layer, {}),
    "attention": (
        attending,
        {"attention-peers": "Times of vLLM's and torch's attention over Aril's"},
    ),
}
