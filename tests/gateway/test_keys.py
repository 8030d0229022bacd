"""The file of keys while it is being written, away, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aril.gateway.keys import Keys, KeysError, hash_of

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = f'[[keys]]\nname = "a"\ntenant = "acme"\nsha256 = "{hash_of("a")}"\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write one key, `a`."""
    path = tmp_path / "keys.toml"
    path.write_text(WHOLE)
    return path


@pytest.fixture
def keys(path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Read it; it is looked at each time that a key is looked for."""
    monkeypatch.setattr("aril.gateway.keys.LOOK_SECONDS", -1.0)
    return Keys(path)


@pytest.mark.parametrize("text", ["", "# soon\n", "keys = []\n", WHOLE[:20]])
def test_a_file_that_is_being_written(path: Path, keys: Keys, text: str) -> None:
    """Emptied, or cut: nobody is locked out, and what is wrong is told until it is well."""
    path.write_text(text)
    assert keys.find("a") is not None
    assert keys.fault is not None
    path.write_text(WHOLE + "\n")
    assert keys.find("a") is not None
    assert keys.fault is None


def test_a_file_that_was_away(path: Path, keys: Keys) -> None:
    """Back as it was, it has no fault any more."""
    away = path.with_suffix(".away")
    path.rename(away)
    assert keys.find("a") is not None
    assert keys.fault is not None
    away.rename(path)
    assert keys.find("a") is not None
    assert keys.fault is None


def test_a_file_without_keys(path: Path) -> None:
    """At the start it is a setting that lets nobody in."""
    path.write_text("")
    with pytest.raises(KeysError, match="holds no key"):
        Keys(path)
