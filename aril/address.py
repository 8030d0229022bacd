"""Where a worker answers over HTTP: host and port, as settings and flags say it."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import urlsplit

DEFAULT: Final = "127.0.0.1:8080"
EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a setting, not a bind
DEFAULT_PORT: Final = 80


class Address(NamedTuple):
    """A host, by name or number, and a port; `str` is as a URL has it."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port` or an http URL. Raises ValueError, with a line that says so.

        What a worker is bound to everywhere is asked on this machine.
        """
        try:
            url = urlsplit(text if "//" in text else f"//{text}")
            host, port = url.hostname, url.port
        except ValueError:
            host = port = None
        if not host or url.scheme not in ("", "http"):
            raise ValueError(f"{text!r} is not an address like http://{DEFAULT}")
        return cls(EVERYWHERE.get(host, host), port or DEFAULT_PORT)
