"""Programs in Go, Node.js and Java that `ARIL_*` variables tell how to come to secured brokers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from aril.worker.topics.admin import Contract, ensure_topics
from tests.clients import live_java, live_node
from tests.security.conftest import PLAN, TENANTS, Site, broker  # noqa: F401 - a fixture
from tests.support.rights import rights_of_a_tenant, rights_of_workers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.secure_kafka import SecureKafka

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(400)]

CLIENTS: Final = Path(__file__).parents[2] / "clients"
TENANT: Final = TENANTS[0]
TOKENS: Final = 8


@pytest.fixture
async def site(broker: SecureKafka, tmp_path: Path) -> Site:  # noqa: F811 - the fixture
    """Have topics made, with the rights that docs/operating.md lists, no more."""
    made = Site(broker, tmp_path, f"-env-{tmp_path.name[-12:].strip('-_')}")
    names = made.names
    contract = Contract(
        jobs_topic=names["jobs_topic"],
        dlq_topic=made.dlq,
        replies_prefix=names["replies_prefix"],
    )
    await ensure_topics(broker.bootstrap, contract, [TENANT], PLAN)
    await broker.allow(
        rights_of_workers("worker", made.stem, group=made.group)
        + rights_of_a_tenant(TENANT, made.stem)
    )
    return made


def program(language: str, folder: Path) -> list[str]:
    """Build a client; return its example as a command that asks for so many tokens."""
    if language == "node":
        live_node.build()
        asked = ["--env", "--events", "--max-tokens", str(TOKENS), "hello"]
        return ["node", str(CLIENTS / "node/examples/ask.mjs"), *asked]
    if language == "java":
        if (why := live_java.missing_tools()) is not None:
            pytest.skip(why)
        example = str(CLIENTS / "java/examples/Ask.java")
        asked = ["env=true", f"max_tokens={TOKENS}", "prompt=hello"]
        return ["java", "-cp", live_java.build(), example, *asked]
    if (go := shutil.which("go")) is None:
        pytest.skip("no Go toolchain")
    made = str(folder / "ask")
    command = [go, "build", "-buildvcs=false", "-o", made, "./examples/ask"]
    subprocess.run(command, cwd=CLIENTS / "go", check=True)
    return [made, "-env", "-json", f"-max-tokens={TOKENS}", "hello"]


def environ(settings: Mapping[str, object]) -> dict[str, str]:
    """Return an environment of these settings and no others of ours."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ARIL_")}
    return own | {f"ARIL_{name.upper()}": str(value) for name, value in settings.items()}


@pytest.mark.parametrize(
    ("language", "door"),
    [
        ("go", "password"),
        ("go", "token"),
        ("node", "password"),
        ("node", "token"),
        ("java", "password"),  # it has no provider of tokens
    ],
)
async def test_variables_alone(site: Site, tmp_path: Path, language: str, door: str) -> None:
    """TLS with a password, or with a certificate and a token: variables say it all."""
    command = program(language, tmp_path)
    settings = {"tenant": TENANT} | site.names
    if door == "token":
        site.renew(TENANT, seconds=3_600)
        settings |= site.broker.by_token(TENANT, site.folder)
    else:
        settings |= site.broker.by_password(TENANT)
    async with site.worker("w", site.broker.by_password("worker")):
        process = await asyncio.create_subprocess_exec(
            *command, env=environ(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    told = [json.loads(line) for line in out.splitlines()]
    ids = [each.get("ids") or (each.get("event") or {}).get("IDs") or [] for each in told]
    assert sum(map(len, ids)) == TOKENS
