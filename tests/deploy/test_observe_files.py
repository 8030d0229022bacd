"""Dashboards, alerts and what compose makes of them agree with the code and with each other."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from aril.worker.observe.metrics import Metrics
from tests.docs.test_paths import headings
from tests.support import dashboards
from tests.support.dashboards import OBSERVE, descriptions, panels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT: Final = OBSERVE.parents[1]
RUNBOOKS: Final = ROOT / "docs" / "runbooks.md"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
FIRING: Final = 'count by (alertname) (ALERTS{alertstate="firing"})'
# Labels that a series has from its scrape, from its type, or from Prometheus itself.
LENT: Final = {"namespace", "job", "instance", "le"}
FOREIGN: Final = {"up", "ALERTS", "process_resident_memory_bytes", "process_start_time_seconds"} | {
    "process_cpu_seconds_total"
}


def rules() -> list[dict[str, Any]]:
    """Return every rule."""
    files = sorted((OBSERVE / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


ALERTS: Final = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED: Final = {rule["record"] for rule in rules() if "record" in rule}


def expressions() -> Iterator[str]:
    """Return everything that Prometheus is asked."""
    for told in descriptions().values():
        yield from told.get("variables", {}).values()
        for panel in panels(told):
            yield from (target["expr"] for target in panel.targets())
    yield from (rule["expr"] for rule in rules())


def names() -> dict[str, set[str]]:
    """Return each series' name with its labels."""
    found: dict[str, set[str]] = {}
    for family in Metrics().families.made:
        ends = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
        found |= {family.name + end: set(family.labels) | LENT for end in ends}
    return found


def test_every_metric_that_is_asked_for_exists() -> None:
    """A renamed family or label must not leave an empty panel, or an alert that never fires."""
    known = names()
    for expression in expressions():
        asked = set(re.findall(r"\b(?:aril[_:]|process_|python_|gen_ai_)[a-z_]+\b", expression))
        assert asked - known.keys() <= FOREIGN | RECORDED, expression
        for name, selector in re.findall(r"\b(\w+)\{([^}]*)\}", expression):
            if name in known:
                assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selector)) <= known[name], expression
        grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
        anything = set().union(*known.values(), {"alertname"})
        assert {label for each in grouped for label in each.split(", ")} <= anything, expression


def test_dashboards_are_current() -> None:
    """Else: make dashboards."""
    for path, text in dashboards.files().items():
        assert path.read_text() == text
    assert {path.name for path in dashboards.files()} == {
        path.name for path in (OBSERVE / "grafana" / "dashboards").iterdir()
    }


def test_a_stale_dashboard_is_told_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check fails, writing mends it."""
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "grafana" / "dashboards").mkdir(parents=True)
    (tmp_path / "dashboards" / "one.yaml").write_text("{title: t, uid: u, text: x, rows: []}")
    monkeypatch.setattr(dashboards, "OBSERVE", tmp_path)
    assert dashboards.main(["--check"]) == 1
    assert "make dashboards" in capsys.readouterr().out
    assert dashboards.main([]) == 0
    assert dashboards.main(["--check"]) == 0


def test_a_field_that_there_is_not_is_refused() -> None:
    """A misspelt field would be passed over else."""
    row = {"title": "r", "panels": [{"title": "t", "text": "x", "unit": "s", "querys": {}}]}
    with pytest.raises(TypeError, match="querys"):
        panels({"rows": [row]})


@pytest.mark.parametrize("name", descriptions())
def test_every_panel_says_what_it_shows(name: str) -> None:
    """Words, a unit and a query each; nothing lies on something else."""
    made = json.loads((OBSERVE / "grafana" / "dashboards" / f"{name}.json").read_text())
    places = [each["gridPos"] for each in made["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < dashboards.COLUMNS
    ids = [each["id"] for each in made["panels"]]
    assert len(ids) == len(set(ids))
    shown = [each for each in made["panels"] if each["type"] != "row"]
    assert len(shown) == len(panels(descriptions()[name]))
    for panel in shown:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


def test_panels_work_for_one_worker_and_for_hundreds() -> None:
    """Each query is of the chosen workers; what has a line for each of something is bounded."""
    chosen = re.escape(f"{{{dashboards.WORKERS}")
    bounded = {"end", "reason"}
    for told in descriptions().values():
        for panel in panels(told):
            for target in panel.targets():
                query, legend = target["expr"], target["legendFormat"]
                known = re.search(rf"\b(?:aril|process)_\w+{chosen}", query)
                assert known or "aril:" in query or "ALERTS" in query, panel.title
                lines = set(re.findall(r"\{\{(\w+)\}\}", legend))
                assert lines <= bounded or "topk(" in query, panel.title


@pytest.mark.parametrize("alert", ALERTS)
def test_alerts_say_what_to_do(alert: str) -> None:
    """Severity, words, and a runbook that exists."""
    told = ALERTS[alert]
    assert told["labels"]["severity"] in {"critical", "warning"}
    assert set(told["annotations"]) == {"summary", "description", "runbook_url"}
    page, _, anchor = told["annotations"]["runbook_url"].partition("#")
    assert ROOT / page == RUNBOOKS
    assert anchor in headings(RUNBOOKS)


def test_runbooks_are_of_alerts() -> None:
    """Each section names its alert and its severity, and each alert is in one."""
    found = re.findall(r"^## .*\n\n`(\w+)`, (\w+)\.", RUNBOOKS.read_text(), re.MULTILINE)
    assert sorted(found) == sorted(
        (name, told["labels"]["severity"]) for name, told in ALERTS.items()
    )


@pytest.mark.parametrize("alert", ALERTS)
def test_alerts_are_tested(alert: str) -> None:
    """Each is seen to fire in a scenario of its own, and not to fire at another time."""
    looks = [
        {alert in sample["labels"] for sample in look["exp_samples"]} or {False}
        for file in (OBSERVE / "tests").glob("*.yml")
        for scenario in yaml.safe_load(file.read_text())["tests"]
        if scenario["name"].split()[0] == alert
        for look in scenario["promql_expr_test"]
        if look["expr"] == FIRING
    ]
    assert {True} in looks
    assert {False} in looks


def test_every_rules_file_has_its_tests() -> None:
    """And promtool is given the targets beside it."""
    files = {path.name for path in (OBSERVE / "rules").glob("*.yml")} - {"targets.yml"}
    tested = {path.name: yaml.safe_load(path.read_text()) for path in (OBSERVE / "tests").iterdir()}
    assert tested.keys() == files
    for name, told in tested.items():
        assert told["rule_files"] == ["../rules/targets.yml", f"../rules/{name}"]


def test_compose_mounts_what_there_is() -> None:
    """Files that the two services find at the places where their configuration looks."""
    mounts = {
        target: ROOT / source
        for service in ("prometheus", "grafana")
        for source, target, *_ in (each.split(":") for each in COMPOSE[service]["volumes"])
        if source.startswith("./")
    }
    assert all(source.exists() for source in mounts.values())
    config = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())
    assert config["rule_files"] == ["/etc/prometheus/rules/*.yml"]
    assert mounts["/etc/prometheus/rules"] == OBSERVE / "rules"
    home = COMPOSE["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    folder, _, name = home.rpartition("/")
    assert (mounts[folder] / name).exists()
    provisioning = mounts["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "aril.yml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == folder


def test_compose_services_find_each_other() -> None:
    """Prometheus scrapes services that there are at their port, Grafana asks Prometheus."""
    (scrape,) = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())["scrape_configs"]
    (found,) = scrape["dns_sd_configs"]
    for name in found["names"]:
        assert COMPOSE[name]["environment"]["ARIL_HTTP"] == f"0.0.0.0:{found['port']}"
    path = OBSERVE / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(path.read_text())["datasources"]
    service, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
    assert COMPOSE[service]["ports"][0].endswith(f":{port}")
    interval = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_compose_services_are_for_this_machine(service: str) -> None:
    """Only with the profile, pinned, hardened, on the loopback interface, with a health check."""
    told = COMPOSE[service]
    assert told["profiles"] == ["observe"]
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", told["image"])
    assert told["read_only"] is True
    assert all(port.startswith("127.0.0.1:") for port in told["ports"])
    assert told["healthcheck"]["test"]


def test_kinds_have_a_size() -> None:
    """A panel of another kind has no place."""
    kinds = {panel.kind for told in descriptions().values() for panel in panels(told)}
    assert kinds == dashboards.SIZES.keys()
    with pytest.raises(KeyError):
        dashboards.dashboard(
            {"title": "t", "uid": "u", "text": "x", "rows": [{"title": "r", "panels": [_PIE]}]}
        )


_PIE: Final = {"title": "t", "text": "x", "unit": "s", "kind": "pie"}
