"""The client without asyncio: for scripts, notebooks and web frameworks that run in threads.

    with Client("localhost:9092", tenant="acme") as client:
        for piece in client.text("Hello!"):
            print(piece, end="", flush=True)

One event loop in a thread of its own does the work of each client; everything else is a call into
it, from any thread. Names, arguments and exceptions are those of `aril.Client`.
"""

from aril.blocking.client import Client
from aril.blocking.stream import Stream

__all__ = ["Client", "Stream"]
