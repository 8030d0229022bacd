"""A tenant's program and its command line, told by variables alone who they are."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from aril import Client

if TYPE_CHECKING:
    from tests.security.conftest import Site

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(120)]

SEND: Final = (sys.executable, "-m", "aril", "send", "--raw", "--max-tokens", "3", "hello")


def environ_of(settings: dict[str, Any]) -> dict[str, str]:
    """Return settings as variables."""
    return {f"ARIL_{name.upper()}": str(value) for name, value in settings.items()}


async def send(environ: dict[str, str]) -> tuple[int | None, str, str]:
    """Run `aril send`; return its exit code, and what it says on both channels."""
    process = await asyncio.create_subprocess_exec(
        *SEND, env=os.environ | environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("door", ["scram", "oauth"])
async def test_by_the_environment_alone(
    site: Site, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a password, and by a token with a certificate: the client and the command are answered."""
    site.renew("acme", seconds=600)
    ways = {
        "scram": site.broker.by_password("acme"),
        "oauth": site.broker.by_token("acme", site.folder),
    }
    environ = environ_of(site.names | ways[door] | {"tenant": "acme"})
    async with site.worker("w", site.broker.by_password("worker")):
        code, out, err = await send(environ)
        assert (code, err) == (0, "")
        assert len(out.split()) == 3
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        async with Client.from_env() as client:
            answer = await client.complete("hello", sampling={"max_tokens": 3}, timeout=60)
        assert len(answer.token_ids) == 3


async def test_a_wrong_password_is_told_without_it(site: Site) -> None:
    """Exit code 1, one line, and the password is not in it."""
    by = site.broker.by_password("acme") | {"sasl_password": "hunter2"}
    code, out, err = await send(environ_of(site.names | by | {"tenant": "acme"}))
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "hunter2" not in err
