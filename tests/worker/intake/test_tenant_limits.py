"""The file of tenants' limits: what it says, what it must not, and that it is read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aril.worker.intake.tenant_limits import TenantLimit, TenantLimits, TenantLimitsError, parse

if TYPE_CHECKING:
    from pathlib import Path

TEXT = b"""
[default]
jobs_per_second = 20
rows = 4
[tenants.acme]
weight = 4
rows = 8
over = "wait"
"""


def test_a_tenant_has_its_own_limits_and_the_defaults_of_what_it_leaves_out() -> None:
    """Who is not named has the defaults."""
    default, named = parse(TEXT)
    assert default == TenantLimit(jobs_per_second=20, rows=4)
    assert named == {"acme": TenantLimit(jobs_per_second=20, rows=8, weight=4, over="wait")}


def test_without_a_file_nobody_has_limits() -> None:
    """All weigh alike."""
    assert TenantLimits().of("acme") == TenantLimit()
    assert TenantLimits().weight("acme") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[default", "not TOML"),
        (b"\xff", "not TOML"),
        (b"x = 1", "'x': only default and tenants.<name>"),
        (b"default = 1", "default: not a table"),
        (b"[tenants]\nacme = 1", "tenants.acme: not a table"),
        (b"[tenants.Acme]", "tenants.'Acme' is no tenant's name"),
        (b"[default]\nrow = 1", "default.row: Extra inputs"),
        (b"[default]\nrows = 0", "default.rows: Input should be greater"),
        (b"[default]\nrows = 1.5", "default.rows: Input should be a valid integer"),
        (b"[default]\nweight = nan", "default.weight: Input should be a finite number"),
        (b"[tenants.acme]\nover = 'drop'", "tenants.acme.over: Input should be 'refuse' or"),
    ],
)
def test_what_is_no_limit_is_named_in_one_line(text: bytes, told: str) -> None:
    """Also what is misspelt: a limit that nobody looks at would be none."""
    with pytest.raises(TenantLimitsError, match=told.replace("'", ".")) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


async def test_the_file_is_read_again_and_what_was_known_stays_if_it_is_wrong(
    tmp_path: Path,
) -> None:
    """Somebody edits it."""
    file = tmp_path / "limits.toml"
    file.write_bytes(TEXT)
    limits = TenantLimits(file)
    assert limits.weight("acme") == 4
    file.write_bytes(b"[tenants.acme]\nweight = -1")
    await limits.reload()
    assert limits.weight("acme") == 4
    file.unlink()
    await limits.reload()
    assert limits.weight("acme") == 4
    file.write_bytes(b"[tenants.acme]\nweight = 2")
    await limits.reload()
    assert limits.weight("acme") == 2


def test_a_file_that_is_not_there_keeps_a_worker_from_starting(tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(TenantLimitsError, match=r"none\.toml: No such file"):
        TenantLimits(tmp_path / "none.toml")
