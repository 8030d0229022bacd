"""The alerts, by promtool: each fires when it should and not when it should not."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.dashboards import OBSERVE
from tests.support.prometheus import TOOLS, need_tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

TESTS: Final = sorted((OBSERVE / "tests").glob("*.yml"))


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    need_tools()


def promtool(*arguments: str | Path) -> None:
    """Run it. Raises AssertionError with what it says if it finds anything wrong."""
    command = [TOOLS / "promtool", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("test", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(test: Path) -> None:
    """Rules are evaluated over the series of each scenario."""
    promtool("test", "rules", test)


def test_rules_and_configuration_are_valid() -> None:
    """No duplicate rule, no template that cannot be expanded, no unknown field."""
    promtool("check", "rules", "--lint=all", "--lint-fatal", *(OBSERVE / "rules").glob("*.yml"))
    promtool("check", "config", "--syntax-only", OBSERVE / "prometheus.yml")
