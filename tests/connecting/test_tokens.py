"""Tokens: what counts as one, when it expires, where it comes from, and that none is shown."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING

import pytest

from aril.connecting.errors import SecurityError, TokenError
from aril.connecting.settings import ConnectionSettings
from aril.connecting.token_file import FileTokens
from aril.connecting.tokens import MAX_TOKEN_CHARACTERS, Token, expiry_of, find_provider
from tests.support.jwts import Issuer

if TYPE_CHECKING:
    from pathlib import Path


def jwt(claims: str) -> str:
    """Return a token that nobody signed, with these claims."""
    return f"e30.{base64.urlsafe_b64encode(claims.encode()).rstrip(b'=').decode()}.x"


def settings_of(file: Path) -> ConnectionSettings:
    """Return the settings of a client whose token lies in a file."""
    return ConnectionSettings.model_validate(
        {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_token_provider": "file",
            "sasl_token_file": file,
        }
    )


@pytest.mark.parametrize(
    ("token", "expires_at"),
    [
        (jwt('{"exp": 1700000000}'), 1_700_000_000.0),
        (jwt('{"exp": 1700000000.5}'), 1_700_000_000.5),
        (jwt('{"sub": "worker"}'), None),
        (jwt('{"exp": true}'), None),
        (jwt('{"exp": "soon"}'), None),
        (jwt('{"exp": 1e999}'), None),
        (jwt('{"exp": ' + "9" * 400 + "}"), None),
        (jwt('{"exp": ' + "9" * 5_000 + "}"), None),
        (jwt("[" * 100_000), None),
        (jwt("[1]"), None),
        (jwt("\x00"), None),
        ("opaque", None),
        ("a.b", None),
        ("a.%.c", None),
        ("a.bcdef.c", None),
    ],
)
def test_a_jwt_says_when_it_expires(token: str, expires_at: float | None) -> None:
    """`exp` is read where it is a number; whatever else stands there is no expiry and no error."""
    assert expiry_of(token) == expires_at


@pytest.mark.parametrize(
    "text", ["", " ", "two words", "a\nb", "a\x01auth=Bearer b", "ü", "=", "a" * 70_000]
)
def test_what_is_no_bearer_token_is_refused(text: str) -> None:
    """Nothing that could end the message which carries it, and begin another."""
    with pytest.raises(TokenError):
        Token.of(text)


def test_a_token_is_not_shown() -> None:
    """Neither its repr nor one of what holds it has the token."""
    assert "secret" not in repr(Token.of("secret")) + str([Token.of("secret")])


async def test_the_file_is_read_each_time(tmp_path: Path) -> None:
    """Whoever keeps it fresh need tell nobody."""
    file, issuer = tmp_path / "token", Issuer()
    provider = FileTokens(settings_of(file))
    for seconds in (600, 1_200):
        issuer.write(file, "worker", seconds=seconds)
        token = await provider.token()
        assert token.value == file.read_text().strip()
        assert token.expires_at is not None
        assert abs(token.expires_at - time.time() - seconds) < 60


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "No such file or directory"),
        (b"", "no bearer token is in it"),
        (b"\xff\xfe", "no bearer token is in it"),
        (b"a" * (MAX_TOKEN_CHARACTERS + 1), "no bearer token is in it"),
        (jwt(json.dumps({"exp": 1})).encode(), "the token in it has expired"),
    ],
)
async def test_a_file_without_a_good_token_is_named(
    content: bytes | None, line: str, tmp_path: Path
) -> None:
    """The error names the file and says why, and holds nothing of what is in it."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TokenError, match=line) as caught:
        await FileTokens(settings_of(file)).token()
    assert str(caught.value).startswith(f"sasl_token_file: {file}: ")
    assert not content or content.decode(errors="replace") not in str(caught.value)


def test_a_package_brings_a_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of the entry point group is loaded and called with the settings."""
    (tmp_path / "vault_tokens.py").write_text(
        "def make(settings):\n    return settings.bootstrap\n"
    )
    described = tmp_path / "vault_tokens-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: vault-tokens\nVersion: 1\n")
    (described / "entry_points.txt").write_text(
        "[aril.token_providers]\nvault = vault_tokens:make\nbroken = no_such_module:make\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = ConnectionSettings.model_validate({"bootstrap": "kafka:9092"})
    made: object = find_provider("vault", settings)
    assert made == "kafka:9092"
    with pytest.raises(SecurityError, match="sasl_token_provider=broken: No module named"):
        find_provider("broken", settings)
    with pytest.raises(SecurityError, match=r"valut: .*only broken, file, oidc, vault"):
        find_provider("valut", settings)
