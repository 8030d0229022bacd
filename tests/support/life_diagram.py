"""The diagram of a job's life in docs/how-it-works.md, made from the table that the worker runs.

`python -m tests.support.life_diagram` writes it anew; tests/docs/test_diagram.py tells when to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aril.worker.stages import TABLE, Event, Stage
from tests.support.marked import between

DOC: Final = Path(__file__).parents[2] / "docs" / "how-it-works.md"
BEGIN: Final = "<!-- made from worker/stages.py by `python -m tests.support.life_diagram` -->\n"
END: Final = "<!-- end of what is made from worker/stages.py -->\n"


def section() -> str:
    """Return the diagram and the table of stages, as Markdown."""
    arrows: dict[tuple[Stage, Stage], list[str]] = {}
    for stage, rows in TABLE.items():
        for event, (after, _) in rows.items():
            if event is not Event.DROPPED:
                arrows.setdefault((stage, after), []).append(event.name.lower())
    lines = [
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> ARRIVED",
        *(
            f"    {stage.name} --> {after.name}: {', '.join(events)}"
            for (stage, after), events in arrows.items()
        ),
        "    SETTLED --> [*]",
        "```",
        "",
        "From every stage `dropped` leads to DROPPED.",
        "",
        "| stage | a job that is here | on an event | it is then | and this is done |",
        "| --- | --- | --- | --- | --- |",
    ]
    for stage, rows in TABLE.items():
        named, told = f"**{stage.name}**", stage.value
        for event, (after, effects) in rows.items():
            done = ", ".join(each.name.lower().replace("_", " ") for each in effects)
            lines.append(f"| {named} | {told} | {event.name.lower()} | {after.name} | {done} |")
            named = told = ""
    lines += [
        "",
        "| event | |",
        "| --- | --- |",
        *(f"| {event.name.lower()} | {event.value} |" for event in Event),
    ]
    return "\n".join(lines) + "\n"


def replaced(text: str) -> str:
    """Return the document with the section made anew. Raises ValueError if it has no marks."""
    return between(text, BEGIN, section(), END)


if __name__ == "__main__":
    DOC.write_text(replaced(DOC.read_text()))
