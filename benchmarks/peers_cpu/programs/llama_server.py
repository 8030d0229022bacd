"""llama.cpp's server, asked by streaming HTTP from this process.

python llama_server.py BINARY MODEL.gguf ADAPTERS
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import aiohttp
import wire

PORT = 31_280
URL = f"http://127.0.0.1:{PORT}"
ROWS = 48


def main(binary: str, model: str, adapters: str) -> None:
    """Start the server, then serve."""
    files = sorted(Path(adapters).glob("*/*.gguf"))
    places = {f"{file.parent.name}/{file.stem}": place for place, file in enumerate(files)}
    words = ["--model", model, "--host", "127.0.0.1", "--port", str(PORT)]
    words += ["--lora-init-without-apply", "--lora", ",".join(map(str, files))]
    words += ["--parallel", str(ROWS), "--kv-unified", "--ctx-size", "32768", "--threads", "2"]
    server = subprocess.Popen([binary, *words], stdout=sys.stderr)  # noqa: S603
    try:
        _wait(server)
        told = subprocess.run(  # noqa: S603
            [binary, "--version"], capture_output=True, text=True, check=True
        )
        version = next(
            line for line in (told.stdout + told.stderr).splitlines() if line.startswith("version")
        )
        wire.serve(
            f"llama.cpp {version.partition(':')[2].strip()}",
            lambda requests: asyncio.run(_answer(requests, places)),
        )
    finally:
        server.terminate()
        server.wait()


def _wait(server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{URL}/health", timeout=2):  # noqa: S310
                return
        except OSError:
            if server.poll() is not None:
                raise
            time.sleep(0.2)
    raise TimeoutError("llama-server does not come up")


async def _answer(requests: list[wire.Request], places: dict[str, int]) -> wire.Answers:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        answers = wire.Answers(requests)
        await asyncio.gather(
            *(
                _stream(session, answers, row, asked, places.get(asked["adapter"]))
                for row, asked in enumerate(requests)
            )
        )
        return answers


async def _stream(
    session: aiohttp.ClientSession,
    answers: wire.Answers,
    row: int,
    asked: wire.Request,
    lora: int | None,
) -> None:
    body = {
        "prompt": asked["prompt"],
        "n_predict": asked["new"],
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "return_tokens": True,
        # No adapter named means all of them, so the backbone is the first one at no strength.
        "lora": [{"id": lora or 0, "scale": 0.0 if lora is None else 1.0}],
    }
    async with session.post(f"{URL}/completion", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data:"):
                event = json.loads(line[5:])
                if not event.get("stop"):
                    answers.add(row, event["tokens"])


main(*sys.argv[1:])
