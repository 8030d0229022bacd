"""One connection to the brokers, shared by the clients of any number of tenants.

    async with Connection("localhost:9092") as connection:
        acme, zeta = connection.client("acme"), connection.client("zeta")

One producer, and one reader for however many jobs of however many tenants. A tenant that asks
nothing costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.client import Client
from aril.link import Link

if TYPE_CHECKING:
    from aril.signer import Signer


class Connection(Link):
    """An async context manager; `client` gives each tenant its own view of it."""

    def client(self, tenant: str, *, signer: Signer | None = None) -> Client:
        """Return a tenant's client over this connection. It costs nothing until it is used.

        Its close, or the end of its `async with`, cancels that client's unfinished jobs alone.
        """
        return Client("", tenant, signer=signer, link=self)
