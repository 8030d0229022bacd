"""Grafana's dashboards, made from the short descriptions in deploy/observe/dashboards/.

`python -m tests.support.dashboards` writes deploy/observe/grafana/dashboards/*.json anew, `--check`
says which are not what they should be (exit code 1). A description says what is shown and why; how
Grafana wants to be told that is here.

A description has `title`, `uid`, `text`, perhaps `variables` (name: query), and `rows`, each with a
`title` and `panels`: the fields of `Panel`. In a query ``WORKERS`` stands for the workers that are
chosen at the top of the page.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OBSERVE: Final = Path(__file__).parents[2] / "deploy" / "observe"
SCHEMA: Final = 39  # of Grafana 11; later ones read it and migrate it in memory
COLUMNS: Final = 24
WORKERS: Final = 'job=~"$fleet",instance=~"$worker"'
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
SIZES: Final = {"stat": (4, 4), "timeseries": (8, 7), "table": (24, 6)}  # width, height
QUANTILES: Final = (0.5, 0.99)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel, as a description has it."""

    title: str
    text: str  # what it shows, and what to think of it
    unit: str  # of Grafana: none, s, bytes, percentunit, or `suffix: jobs/s`
    queries: dict[str, str] = field(default_factory=dict)  # legend: expression
    quantiles: str = ""  # a histogram of which to show the median and the 99th percentile
    kind: str = "timeseries"  # stat, timeseries or table
    stacked: bool = False
    red_above: float | None = None
    red_below: float | None = None
    empty: str = ""  # why there may be no data in a fleet that is well

    def targets(self) -> Iterator[dict[str, Any]]:
        """Return the queries as Grafana has them."""
        named = dict(self.queries)
        for share in QUANTILES if self.quantiles else ():
            rate = f"rate({self.quantiles}_bucket{{WORKERS}}[$__rate_interval])"
            named[f"p{100 * share:.0f}"] = f"histogram_quantile({share}, sum by (le) ({rate}))"
        for number, (legend, expression) in enumerate(named.items()):
            yield {
                "refId": chr(ord("A") + number),
                "expr": " ".join(expression.replace("WORKERS", WORKERS).split()),
                "legendFormat": legend,
                **({"instant": True, "format": "table"} if self.kind == "table" else {}),
            }

    def json(self, number: int, place: dict[str, int]) -> dict[str, Any]:
        """Return the panel as Grafana has it."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": " ".join(self.text.split()),
            "datasource": SOURCE,
            "gridPos": place,
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
            "targets": list(self.targets()),
            **({"transformations": [_WITHOUT_NUMBERS]} if self.kind == "table" else {}),
        }

    def _defaults(self) -> dict[str, Any]:
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        if self.red_above is not None:
            steps.append({"color": "red", "value": self.red_above})
        if self.red_below is not None:
            steps = [{"color": "red", "value": None}, {"color": "green", "value": self.red_below}]
        told: dict[str, Any] = {
            "unit": self.unit,
            "thresholds": {"mode": "absolute", "steps": steps},
        }
        if self.kind == "timeseries":
            stacking = {"mode": "normal" if self.stacked else "none", "group": "A"}
            told["min"] = 0
            told["custom"] = {
                "fillOpacity": 30 if self.stacked else 8,
                "showPoints": "never",
                "stacking": stacking,
            }
        return told

    def _options(self) -> dict[str, Any]:
        if self.kind == "stat":
            return {
                "colorMode": "value",
                "graphMode": "area",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            }
        if self.kind == "timeseries":
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        return {"showHeader": True}


_WITHOUT_NUMBERS: Final = {
    "id": "organize",
    "options": {"excludeByName": {"Time": True, "Value": True}},
}


def panels(description: dict[str, Any]) -> list[Panel]:
    """Return all panels of a description. Raises TypeError if one has a field that there is not."""
    return [Panel(**panel) for row in description["rows"] for panel in row["panels"]]


def dashboard(description: dict[str, Any]) -> dict[str, Any]:
    """Return a description as Grafana has it."""
    laid: list[dict[str, Any]] = []
    top = 0
    for row in description["rows"]:
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        laid.append(
            {
                "id": len(laid) + 1,
                "type": "row",
                "title": row["title"],
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        left, top, tallest = 0, top + 1, 0
        for panel in (Panel(**each) for each in row["panels"]):
            width, height = SIZES[panel.kind]
            if left + width > COLUMNS:
                left, top, tallest = 0, top + tallest, 0
            place = {"x": left, "y": top, "w": width, "h": height}
            laid.append(panel.json(len(laid) + 1, place))
            left, tallest = left + width, max(tallest, height)
        top += tallest
    variables = {
        "fleet": "label_values(aril_ready, job)",
        "worker": 'label_values(aril_ready{job=~"$fleet"}, instance)',
        **description.get("variables", {}),
    }
    return {
        "title": description["title"],
        "uid": description["uid"],
        "description": description["text"],
        "tags": ["aril"],
        "schemaVersion": SCHEMA,
        "editable": False,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [
            {"type": "dashboards", "tags": ["aril"], "title": "Aril", "keepTime": True},
        ],
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                *(_variable(name, query) for name, query in variables.items()),
            ]
        },
        "panels": laid,
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def descriptions() -> dict[str, dict[str, Any]]:
    """Return each dashboard's description, by its name."""
    found = sorted((OBSERVE / "dashboards").glob("*.yaml"))
    return {path.stem: yaml.safe_load(path.read_text()) for path in found}


def files() -> dict[Path, str]:
    """Return each dashboard's file with the text that it should have."""
    folder = OBSERVE / "grafana" / "dashboards"
    return {
        folder / f"{name}.json": json.dumps(dashboard(told), indent=2) + "\n"
        for name, told in descriptions().items()
    }


def main(arguments: Sequence[str]) -> int:
    """Write the dashboards, or check them."""
    stale = {
        path: text
        for path, text in files().items()
        if not path.is_file() or path.read_text() != text
    }
    for path, text in stale.items():
        if "--check" in arguments:
            print(f"{path.relative_to(OBSERVE)}: not current, run `make dashboards`")
        else:
            path.write_text(text)
            print(f"{path.relative_to(OBSERVE)}: written")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
