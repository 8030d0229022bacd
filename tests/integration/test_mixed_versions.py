"""Two builds in one group, as while a fleet is updated: they take jobs over from each other.

The older one is the last release, and as long as there is none this branch fifty commits ago. It
runs from a checkout of its own, with the packages that are installed here.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import TENANTS
from tests.integration.test_workers import serve, writers_of
from tests.support.group_protocols import by_either_protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Site
    from tests.support.workers import WorkerProcess

ROOT = Path(__file__).parents[2]
COMMITS = 50  # back, where nothing was released
JOBS = 120
CONSUMER = "worker/queue/membership/consumer.py"

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(280)]


def git(*arguments: str) -> str:
    """Ask git; the answer is one line. Raises CalledProcessError."""
    asked = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def older_commit() -> str:
    """Return the last release's, or one that is a while ago. Raises CalledProcessError."""
    try:
        return git("describe", "--tags", "--abbrev=0", "--match", "v*")
    except subprocess.CalledProcessError:
        return git("rev-parse", "--verify", "--end-of-options", f"HEAD~{COMMITS}")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Check the older build out."""
    folder = tmp_path_factory.mktemp("older") / "checkout"
    try:
        git("worktree", "add", "--detach", str(folder), older_commit())
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git, or a clone without history")
    # It asks for the version of a package by a name that may not be installed here.
    (installed := folder / "aril-0.dist-info").mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: aril\nVersion: 0\n")
    yield folder
    git("worktree", "remove", "--force", str(folder))


def of_older(site: Site, name: str, older: Path) -> WorkerProcess:
    """Return a worker of the older build."""
    if site.protocol == "consumer" and not (older / CONSUMER).exists():
        pytest.skip("the older build has no KIP-848")
    worker = site.worker(name)
    worker.checkout = older
    return worker


@by_either_protocol
@pytest.mark.parametrize("dies", ["older", "newer"])
async def test_each_takes_over_from_the_other(site: Site, older: Path, dies: str) -> None:
    """One is killed in the middle of answers; the other build goes on behind what is visible."""
    async with of_older(site, "older", older) as old, site.worker("newer") as new:
        begun = asyncio.Event()
        serving = asyncio.create_task(serve(site, JOBS, begun))
        await begun.wait()
        killed, other = (old, new) if dies == "older" else (new, old)
        killed.signal(signal.SIGKILL)
        await serving
        writers = await writers_of(site, JOBS)
        assert writers.total() == JOBS
        assert await other.metric("aril_jobs_total") > JOBS / len(TENANTS)
        assert await other.stop() == 0


@by_either_protocol
async def test_a_fleet_is_updated_worker_by_worker(site: Site, older: Path) -> None:
    """Two of the older build go as two of the newer come; each job is answered once."""
    async with of_older(site, "first", older) as first, of_older(site, "second", older) as second:
        begun = asyncio.Event()
        serving = asyncio.create_task(serve(site, JOBS, begun))
        await begun.wait()
        async with site.worker("third"):
            assert await first.stop() == 0
            async with site.worker("fourth"):
                assert await second.stop() == 0
                await serving
        assert (await writers_of(site, JOBS)).total() == JOBS
