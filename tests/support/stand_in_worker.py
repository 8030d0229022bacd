"""A worker process without a model, for tests of what starts one: probes, metrics, slow answers.

As `python -m tests.support.stand_in_worker` it takes its settings from `ARIL_*` as a real one does.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Final

from aiohttp import web

from tests.support.fake_worker import FakeWorker

METRICS: Final = """\
# TYPE aril_step_rows histogram
aril_step_rows_bucket{{le="1.0"}} 0
aril_step_rows_bucket{{le="16.0"}} {steps}
aril_step_rows_bucket{{le="+Inf"}} {steps}
aril_step_rows_count {steps}
aril_step_rows_sum {rows}
# TYPE aril_step_adapters histogram
aril_step_adapters_bucket{{le="4.0"}} {steps}
aril_step_adapters_bucket{{le="+Inf"}} {steps}
aril_step_adapters_count {steps}
aril_step_adapters_sum {adapters}
"""
LOADING_SECONDS: Final = 0.5


async def main() -> None:
    """Load for a while, then answer until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    ready = asyncio.Event()
    served: list[FakeWorker] = []

    async def readyz(_: web.Request) -> web.Response:
        waiting = {} if ready.is_set() else {"model": "loading"}
        return web.json_response(waiting, status=200 if ready.is_set() else 503)

    async def metrics(_: web.Request) -> web.Response:
        steps = sum(worker.served for worker in served)
        text = METRICS.format(steps=steps, rows=4 * steps, adapters=2 * steps)
        return web.Response(text=text)

    app = web.Application()
    app.add_routes([web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app)
    await runner.setup()
    host, port = os.environ["ARIL_HTTP"].split(":")
    await web.TCPSite(runner, host, int(port)).start()
    await asyncio.sleep(LOADING_SECONDS)
    async with FakeWorker.on_kafka(
        os.environ["ARIL_BOOTSTRAP"], jobs_topic="jobs", replies_prefix="replies."
    ) as worker:
        served.append(worker)
        worker.pause = float(os.environ.get("STAND_IN_PAUSE", "0"))
        ready.set()
        await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
