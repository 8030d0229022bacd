"""How long a member tries to leave its group: it is a courtesy, the end of its session does it too.

A broker that halts takes what is sent and answers nothing. aiokafka waits for the answer as long as
for any other, 40 seconds; librdkafka promises no time.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aril.worker.observe.logs import get_logger

log = get_logger(__name__)

LEAVE_SECONDS: Final = 10.0


async def said(goodbye: asyncio.Task[None]) -> bool:
    """Wait until a goodbye is said, or is not worth waiting for any more; return which it was.

    It goes on where it was not. Raises what it raises.
    """
    await asyncio.wait({goodbye}, timeout=LEAVE_SECONDS)
    if goodbye.done():
        await goodbye
        return True
    log.warning("group_not_left", why="no answer; the group goes on once our session has ended")
    return False
