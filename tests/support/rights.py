"""The rights that docs/operating.md lists, read from its table."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from tests.support.secure_kafka import Kind, Operation, Rule

PAGE: Final = Path(__file__).parents[2] / "docs/operating.md"


class Row(NamedTuple):
    """A line of the table."""

    who: str
    what: str
    operations: str


def table() -> list[Row]:
    """Return the table's lines."""
    lines = PAGE.read_text().splitlines()
    begin = lines.index("| who | resource | operations |") + 2
    rows = []
    for line in lines[begin:]:
        if not line.startswith("|"):
            break
        rows.append(Row(*(cell.strip() for cell in line.strip("|").split("|"))))
    return rows


def rights_of_workers(user: str, stem: str, *, group: str) -> list[Rule]:
    """Return what a worker may do, without creating topics; with a topic for each tenant or not.

    `stem` is put behind the names of topics as the page has them, so that tests do not meet.
    """
    places = {
        "topics `jobs` (": [(Kind.TOPIC, f"jobs{stem}", False), (Kind.TOPIC, f"jobs{stem}.", True)],
        "topics with prefix `replies.`": [(Kind.TOPIC, f"replies{stem}.", True)],
        "topic `jobs.dlq`": [(Kind.TOPIC, f"jobs{stem}.dlq", False)],
        "group `ARIL_GROUP`": [(Kind.GROUP, group, False)],
    }
    return _rules("workers", user, places)


def rights_of_a_tenant(user: str, stem: str) -> list[Rule]:
    """Return what a tenant may do, which is named as its user; with a topic of its own or not."""
    own = f"replies{stem}.{user}"
    places = {
        "its topic of jobs": [
            (Kind.TOPIC, f"jobs{stem}", False),
            (Kind.TOPIC, f"jobs{stem}.{user}", False),
        ],
        "its topic `replies.<tenant>`, literal": [(Kind.TOPIC, own, False)],
    }
    return _rules("a tenant", user, places)


def _rules(who: str, user: str, places: dict[str, list[tuple[Kind, str, bool]]]) -> list[Rule]:
    """Return a rule for each operation; each of `places` has to be a line, and each line one."""
    rules, left = [], dict(places)
    for row in table():
        if row.who != who:
            continue
        begins = next(each for each in places if row.what.startswith(each))
        always = row.operations.partition(";")[0]
        for kind, name, prefixed in left.pop(begins):
            rules += [
                Rule(user, kind, name, Operation[operation.upper()], prefixed)
                for operation in always.split(", ")
            ]
    assert not left, f"docs/operating.md has no line for {sorted(left)}"
    return rules
