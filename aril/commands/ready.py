"""`aril check --ready`: is a running worker ready? For container health checks: light, no model."""

from __future__ import annotations

import http.client
import os
from typing import TYPE_CHECKING, Final

from aril.address import DEFAULT, Address
from aril.arguments import FAILED, OK, UsageError

if TYPE_CHECKING:
    import argparse

LONGEST_ANSWER: Final = 2_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    parser.usage = "aril check --ready [URL] [--timeout SECONDS]"
    parser.description = "Ask a running worker whether it takes jobs: exit code 0 yes, 1 no."
    parser.add_argument(
        "--ready",
        nargs="?",
        const="",
        metavar="URL",
        help=f"the worker [env ARIL_HTTP; default http://{DEFAULT}]",
    )
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="default 5")


def run(arguments: argparse.Namespace) -> int:
    """Ask `/readyz`; print the answer and return the exit code."""
    host, port = _address(arguments.ready or os.environ.get("ARIL_HTTP") or DEFAULT)
    connection = http.client.HTTPConnection(host, port, timeout=arguments.timeout)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(LONGEST_ANSWER).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        print(f"not ready: {host}:{port}: {str(error) or type(error).__name__}")
        return FAILED
    finally:
        connection.close()
    ready = answer.status == http.client.OK
    print(text or ("ready" if ready else f"not ready: {answer.status}"))
    return OK if ready else FAILED


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise UsageError(f"check: {error}") from None
