"""Signed jobs through the whole service: a forger reaches nobody's job and nobody's replies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgpack
import pytest

from aril.schemas import Cancel, DoneEvent, ErrorCode, ErrorEvent, Job, encode_request
from aril.signer import Signer
from aril.worker.engine.request import Output
from aril.worker.job import Partition, Record
from tests.support.harness import Harness
from tests.support.signing import put_key, signed

if TYPE_CHECKING:
    from pathlib import Path


class Site:
    """A folder of keys of acme and of the forger zeta."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.acme, self.zeta = Signer.new(), Signer.new()
        put_key(folder, "acme", self.acme)
        put_key(folder, "zeta", self.zeta)

    def harness(self) -> Harness:
        """Return a worker that asks for signatures."""
        return Harness(tenant_from="signature", tenant_keys=str(self.folder))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Make keys for two tenants."""
    return Site(tmp_path)


def job(name: str = "j1", tenant: str = "acme") -> Job:
    """Return a job that anybody would accept, once signed."""
    return Job(id=name, tenant=tenant, prompt=f"prompt of {name}")


def reasons(harness: Harness) -> list[str]:
    """Return why records were put aside."""
    return [headers["aril-reason"].decode() for _, _, headers in harness.dead_letters]


def written(harness: Harness) -> int:
    """Count the records in all reply topics."""
    return sum(
        len(log) for (topic, _), log in harness.writer.logs.items() if topic.startswith("replies.")
    )


async def test_a_signed_job_is_answered_and_its_signed_cancel_ends_it(site: Site) -> None:
    """What acme signs is acme's: its job runs, its cancel ends it, both offsets are done."""
    async with site.harness() as harness:
        harness.put(signed(job(), site.acme))
        await harness.settle()
        harness.step(Output(harness.key_of("prompt of j1"), (5,), "he"))
        await harness.settle()
        harness.put(signed(Cancel(id="j1", tenant="acme"), site.acme))
        await harness.settle()
        terminal = harness.visible("acme", "j1").terminal
        assert isinstance(terminal, ErrorEvent)
        assert terminal.code is ErrorCode.CANCELLED
        assert harness.state.position == 2
        assert harness.dead_letters == []


async def test_forged_records_reach_neither_job_nor_replies(site: Site) -> None:
    """Jobs, cancels and rubbish in acme's name: put aside with their reason, acme's job goes on."""
    async with site.harness() as harness:
        real = signed(job(), site.acme)
        harness.put(real)
        await harness.settle()
        key = harness.key_of("prompt of j1")
        plain = Record(real.source, 0, real.timestamp_ms, b"j1", real.value, [])
        posing = Signer(site.zeta._key, key_id=site.acme.key_id)
        broken = msgpack.packb({"v": 1, "kind": "job", "id": "j1", "tenant": "acme"})
        forged = [
            (plain, "unsigned"),
            (signed(Cancel(id="j1", tenant="acme"), posing), "signature_invalid"),
            (signed(job("j2"), site.zeta), "signature_key_unknown"),
            (signed(broken, posing), "signature_invalid"),
            (signed(b"\xc1", posing), "signature_invalid"),
            (signed(Cancel(id="j1", tenant="acme"), site.zeta, tenant="zeta"), "tenant_mismatch"),
            (signed(job("j3"), site.acme, timestamp_ms=0), "signature_out_of_time"),
            (signed(job("j4"), site.acme, source=Partition("jobs", 1)), "signature_invalid"),
        ]
        for record, _ in forged[:-1]:
            harness.put(record)
        elsewhere = forged[-1][0]
        harness.put(replace(elsewhere, source=real.source))
        await harness.settle()
        assert reasons(harness) == [reason for _, reason in forged]
        assert written(harness) == 0
        counted = harness.metrics.registry.get_sample_value
        for reason in {reason for _, reason in forged}:
            told = counted("aril_dead_letters_total", {"reason": reason})
            assert told == reasons(harness).count(reason)
        harness.step(Output(key, (5,), "hello", finish="stop"))
        await harness.settle()
        assert isinstance(harness.visible("acme", "j1").terminal, DoneEvent)
        assert harness.state.position == 1 + len(forged)


async def test_a_forger_cannot_take_an_id_before_its_owner(site: Site) -> None:
    """First offset wins among signed records only: a forged one before it claims no identity."""
    async with site.harness() as harness:
        posing = Signer(site.zeta._key, key_id=site.acme.key_id)
        harness.put(signed(Job(id="j1", tenant="acme", prompt="forged"), posing))
        harness.put(signed(job(), site.acme))
        await harness.settle()
        assert harness.running == ["prompt of j1"]
        assert reasons(harness) == ["signature_invalid"]


async def test_a_wrong_tenant_field_is_told_to_the_signer_alone(site: Site) -> None:
    """Who signs a job of another tenant's hears of it in his own replies."""
    async with site.harness() as harness:
        harness.put(signed(job("j9", tenant="acme"), site.zeta, tenant="zeta"))
        await harness.settle()
        terminal = harness.visible("zeta", "j9").terminal
        assert isinstance(terminal, ErrorEvent)
        assert terminal.code is ErrorCode.INVALID_JOB
        assert harness.replies("acme", "j9") == []
        assert reasons(harness) == ["tenant_mismatch"]


async def test_a_broken_job_that_is_signed_is_told_to_its_tenant(site: Site) -> None:
    """A signature makes a refused job attributable, as its own topic would."""
    value = msgpack.packb({"v": 1, "kind": "job", "id": "j1", "tenant": "acme"})
    async with site.harness() as harness:
        harness.put(signed(value, site.acme))
        await harness.settle()
        terminal = harness.visible("acme", "j1").terminal
        assert isinstance(terminal, ErrorEvent)
        assert terminal.code is ErrorCode.INVALID_JOB


async def test_a_replay_is_one_job(site: Site) -> None:
    """The same record again, or the same job signed anew, while at work and after: one answer."""
    async with site.harness() as harness:
        record = signed(job(), site.acme)
        harness.put(record)
        await harness.settle()
        harness.put(record)
        harness.step(Output(harness.key_of("prompt of j1"), (5,), "hello", finish="stop"))
        await harness.settle()
        harness.put(record)
        harness.put(signed(job(), site.acme))
        await harness.settle()
        assert written(harness) == 2  # tokens, done
        assert harness.running == []
        assert harness.dead_letters == []
        assert harness.state.position == 4


async def test_a_revoked_key_starts_nothing_more(site: Site) -> None:
    """The folder is read at start: a worker that starts later knows nothing of the removed key."""
    record = signed(job(), site.acme)
    for path in (site.folder / "acme").iterdir():
        path.unlink()
    async with site.harness() as harness:
        harness.put(record)
        harness.put(signed(job("z1", "zeta"), site.zeta, tenant="zeta", key=b"z1"))
        await harness.settle()
        assert reasons(harness) == ["signature_key_unknown"]
        assert harness.running == ["prompt of z1"]


def test_the_dead_letter_keeps_the_record_as_it_came(site: Site) -> None:
    """Bytes that nobody signed are not decoded: not even their size of map is looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aril.worker.intake.judge.decode_request", lambda _: pytest.fail("decoded"))
        harness = site.harness()
        posing = Signer(site.zeta._key, key_id=site.acme.key_id)
        judge = harness.lifecycle.parts.admission._judge
        verdict = judge.verdict(signed(encode_request(job()), posing))
    assert getattr(verdict, "reason", None) == "signature_invalid"
