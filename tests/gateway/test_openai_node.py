"""OpenAI's own client for Node against a real worker behind a real gateway."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support.gateway_stand import KEY, SLOW_KEY

if TYPE_CHECKING:
    from tests.support.gateway_stand import Stand

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

FOLDER: Final = Path(__file__).with_name("node")
INSTALL_SECONDS: Final = 180
RUN_SECONDS: Final = 240


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the client beside a copy of the program; skips where that cannot be."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("node")
    for file in ("package.json", "package-lock.json", "client.mjs"):
        shutil.copy(FOLDER / file, folder)
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"npm ci: {done.stderr.strip()[-200:]}")
    return folder / "client.mjs"


@pytest.fixture(scope="module")
def told(program: Path, stand: Stand) -> Any:
    """Run the program; return what it got."""
    done = subprocess.run(
        ["node", str(program), f"{stand.url}/v1", KEY, SLOW_KEY],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_answers(told: Any) -> None:
    """Whole and streamed are one; log probabilities, stops, forms, models."""
    assert told["whole"] == told["streamed"]
    assert told["usage"][0] == told["usage"][1]
    assert told["rows"] == [12, 12]
    assert told["whole"].startswith(told["stopped"])
    assert len(told["stopped"]) < len(told["whole"])
    assert told["formed"]["answer"] in {"yes", "no"}
    assert told["models"] == ["aril", "tiny", "house", "terse"]


@pytest.mark.parametrize(
    ("case", "kind", "status", "code"),
    [
        ("unknown", "NotFoundError", 404, "unknown_adapter"),
        ("toolong", "BadRequestError", 400, "limit_exceeded"),
        ("stranger", "AuthenticationError", 401, "invalid_api_key"),
        ("limited", "RateLimitError", 429, "rate_limit_exceeded"),
        ("left", "APIError", 499, "cancelled"),
        ("ended", "APIError", None, "cancelled"),
        ("timeout", "APIConnectionTimeoutError", None, None),
    ],
)
def test_errors(told: Any, case: str, kind: str, status: int | None, code: str | None) -> None:
    """Each is the exception that its users catch, with our code, limit and value."""
    error = told[case]
    assert (error["kind"], error.get("status"), error.get("code")) == (kind, status, code)
    if case == "toolong":
        assert error["body"]["given"] == 100_000_000
        assert error["body"]["limit"] < 100_000_000


def test_a_retry(told: Any) -> None:
    """Under one Idempotency-Key there is one answer."""
    same, first, again = told["retried"]
    assert same
    assert first == again
