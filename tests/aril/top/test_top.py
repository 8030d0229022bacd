"""`aril top` against something that answers, and how it is shown."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from aril.address import Address
from aril.top.screen import TITLES, as_json, number, percent, seconds, shown
from aril.top.view import AdapterRow, Group, TenantRow, WorkerRow
from aril.top.watching import Watch
from tests.support.answering import answering

if TYPE_CHECKING:
    from tests.aril.conftest import RunAril

FULL = WorkerRow(address="10.0.0.7:8080", state="ready", running=12, tokens=304.4, kv=0.37)
BROKEN = WorkerRow(address="10.0.0.8:8080", state="-", problem="nobody answers")
TENANTS = [TenantRow(name=f"t{at}", tokens=9.0 - at) for at in range(5)]


def screen(group: Group, *, width: int = 200, most: int = 10) -> str:
    """Return a group as it is shown on a terminal of that width."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(shown(group, console, most=most))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_each_worker_has_a_line_and_all_have_one() -> None:
    """Of one that does not answer it is said why."""
    text = screen(Group([FULL, BROKEN]))
    assert "10.0.0.7:8080 ready" in text
    assert "10.0.0.8:8080: nobody answers" in text
    assert sum(line.startswith("all ") for line in text.splitlines()) == 1
    assert "all " not in screen(Group([FULL]))


def test_tenants_and_adapters_are_shown_where_they_are_told() -> None:
    """So many of each; the others are counted."""
    text = screen(Group([FULL], TENANTS, [AdapterRow(name="acme/terse", device=1)]), most=2)
    assert ("t1" in text, "t2" in text, "3 more" in text) == (True, False, True)
    assert "acme/terse" in text
    assert "tenant" not in screen(Group([FULL]))


@pytest.mark.parametrize("width", [70, 80, 100, 120])
def test_a_narrow_terminal_does_without_some_columns(width: int) -> None:
    """Rather than with halves of figures."""
    text = screen(Group([FULL, FULL]), width=width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "running" in text


def test_names_are_no_markup() -> None:
    """A tenant's name is a stranger's word."""
    text = screen(Group([FULL], [TenantRow(name="[bold]\x1b[2J")]))
    assert "[bold]" in text
    assert "\x1b" not in text


def test_figures_are_short() -> None:
    """A digit behind the point where the number is small, none where there is none."""
    assert [*map(number, (None, 0, 0.25, 9.9, 12.6, 1500))] == [
        "-",
        "0",
        "0.2",
        "9.9",
        "13",
        "1,500",
    ]
    assert [*map(seconds, (None, 0.4, 2))] == ["-", "400 ms", "2.0 s"]
    assert [*map(percent, (None, 0.374))] == ["-", "37%"]


def test_json_has_every_figure() -> None:
    """By the names of the rows; what is not told is null."""
    told = as_json(Group([FULL, BROKEN], TENANTS))
    assert told["total"]["tokens"] == 304.4
    assert told["total"]["lag"] is None
    assert set(TITLES) <= told["workers"][0].keys()
    json.dumps(told)


@pytest.mark.parametrize(
    ("status", "text", "problem"),
    [
        (200, "aril_ready 1", ""),
        (404, "", "404 Not Found"),
        (200, "<html>", "its page is no metrics of a worker"),
        (200, "x" * (8 << 20), "its page is no metrics of a worker"),
    ],
)
async def test_what_answers_there(status: int, text: str, problem: str) -> None:
    """Whatever it is, it has a row."""
    async with (
        answering("/metrics", status, text) as address,
        Watch([Address.parse(address)]) as watch,
    ):
        (row,) = (await watch.look()).workers
    assert (row.address, row.problem) == (address, problem)


async def test_once(aril: RunAril) -> None:
    """Two looks and one line; somebody has to answer."""
    nobody = "127.0.0.1:1"
    async with answering("/metrics", 200, "aril_tokens_total 5\naril_ready 1") as address:
        done = await aril("top", "--once", "--json", "--interval", "0.1", address, nobody)
        table = await aril(
            "top", "--once", "--interval", "0.1", env={"ARIL_TOP_WORKERS": f"{address}, {nobody}"}
        )
    (told,) = map(json.loads, done.out.splitlines())
    assert [row["state"] for row in told["workers"]] == ["ready", "-"]
    assert told["total"]["tokens"] == 0
    assert (done.code, table.code) == (0, 0)
    assert address in table.out
    assert "127.0.0.1:1: nobody answers" in table.out
    alone = await aril("top", "--once", "--interval", "0.1", nobody)
    assert alone.code == 1
