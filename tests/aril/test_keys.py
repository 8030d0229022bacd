"""Keys of tenants at the client's side: made, read, refused, and what is signed with them."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from aril import BadKey, Client, Signer
from aril.arguments import FAILED, OK, USAGE
from aril.cli import main
from aril.commands.check import check_keys
from aril.commands.report import Report
from aril.gateway.keys import Keys
from aril.memory import MemoryBroker, MemoryTransport
from aril.schemas import Cancel, Job, decode_request
from aril.schemas.signature import SignatureError
from aril.worker.intake.tenant_keys import TenantKeys, read_keys
from aril.worker.job import Partition, Record
from aril.worker.settings import load_settings
from tests.support.fake_worker import FakeWorker
from tests.support.signing import keys_of, put_key
from tests.support.tiny import make_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from tests.aril.conftest import Cluster, RunAril


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_new_makes_a_private_file_and_prints_the_public_half(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only its owner may read the one; the other, put where it says, is that key."""
    assert main(["keys", "new", "acme"]) == OK
    private = here / "acme.key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    printed = capsys.readouterr()
    signer = Signer.from_file(private)
    assert printed.out.encode() == signer.public_pem()
    assert f"<ARIL_TENANT_KEYS>/acme/{signer.key_id}.pem" in printed.err
    assert "PRIVATE" not in printed.out + printed.err


def test_new_puts_the_public_half_into_the_workers_folder(here: Path) -> None:
    """Two keys for one tenant live side by side: that is how one is rotated."""
    (here / "keys").mkdir()
    for name in ("one.key", "two.key"):
        assert main(["keys", "new", "acme", "--private", name, "--into", "keys"]) == OK
    found = read_keys(here / "keys")
    assert found.problems == ()
    signers = [Signer.from_file(here / name) for name in ("one.key", "two.key")]
    assert set(found.keys) == {("acme", signer.key_id) for signer in signers}
    assert not list((here / "keys" / "acme").glob(".*"))


def test_new_never_overwrites_a_key(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The key that is there stays as it is; one line says so."""
    assert main(["keys", "new", "acme"]) == OK
    before = (here / "acme.key").read_bytes()
    capsys.readouterr()
    assert main(["keys", "new", "acme"]) == FAILED
    assert capsys.readouterr().err == "aril: keys: acme.key: File exists\n"
    assert (here / "acme.key").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["new", "../acme"], "is not a tenant's name"),
        (["new", "shared"], "is not a tenant's name"),
        (["old", "acme"], "invalid choice"),
        (["new", "acme", "--into", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_mistakes_are_one_line_and_make_nothing(
    arguments: list[str], told: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong usage is exit code 2, and no file is left behind."""
    assert main(["keys", *arguments]) == USAGE
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1
    assert list(here.iterdir()) == []


def test_what_is_no_key_to_sign_with(here: Path) -> None:
    """A key of another kind, a public one, one behind a password or open to all: one line each."""
    good = here / "good.key"
    Signer.new().save(good)
    elliptic = generate_ec(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    locked = Signer.new()._key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    for name, content in {
        "elliptic": elliptic,
        "locked": locked,
        "public": Signer.new().public_pem(),
        "text": b"hello",
        "large": good.read_bytes() * 100,
    }.items():
        (here / name).write_bytes(content)
        (here / name).chmod(0o600)
    (here / "open").write_bytes(good.read_bytes())
    (here / "open").chmod(0o644)
    for name, told in {
        "elliptic": "not an Ed25519 key",
        "locked": "behind a password",
        "public": "not a private key",
        "text": "not a private key",
        "open": "chmod 600",
        "none": "No such file",
        ".": "Is a directory",
    }.items():
        with pytest.raises(BadKey, match=told):
            Signer.from_file(here / name)
    with pytest.raises(BadKey, match="cannot name a key"):
        Signer.from_file(good, key_id="../x")
    assert Signer.from_file(good, key_id="2026-11").key_id == "2026-11"


def test_send_refuses_a_bad_key_before_it_connects(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag or ARIL_KEY that names no key is wrong usage."""
    (here / "bad.key").write_text("hello")
    (here / "bad.key").chmod(0o600)
    assert main(["send", "-t", "acme", "--key", "bad.key", "hi"]) == USAGE
    assert "bad.key: not a private key" in capsys.readouterr().err
    monkeypatch.setenv("ARIL_KEY", "nowhere.key")
    assert main(["send", "-t", "acme", "hi"]) == USAGE
    assert capsys.readouterr().err == "aril: send: nowhere.key: No such file or directory\n"


class Sent:
    """What a client put on the jobs topic, read as a worker with the tenant's key would."""

    def __init__(self, folder: Path) -> None:
        self.broker = MemoryBroker()
        self.signer = Signer.new()
        put_key(folder, "acme", self.signer)
        self.keys: TenantKeys = keys_of(folder)

    def client(self, *, signer: Signer | None, topic: str = "jobs") -> Client:
        """Return a client of acme."""
        transport = MemoryTransport(self.broker)
        return Client("", "acme", jobs_topic=topic, signer=signer, transport=transport)

    async def next(self, *, topic: str = "jobs") -> tuple[Job | Cancel, Record]:
        """Return the next request, and the record that a worker gets."""
        key, value = await self.broker.jobs.get()
        headers = self.broker.headers.pop(0)
        signed_ms = int(headers[0][1].split(b".")[3])  # no worker's clock is asked
        record = Record(Partition(topic, 0), 0, signed_ms, key, value, headers)
        return decode_request(value), record


async def test_a_client_signs_jobs_and_cancels(tmp_path: Path) -> None:
    """Every job and every cancel that the client sends is its tenant's at a worker."""
    sent = Sent(tmp_path)
    async with sent.client(signer=sent.signer) as client:
        stream = await client.stream("hello", job_id="j1").start()
        job, record = await sent.next()
        assert isinstance(job, Job)
        assert sent.keys.signer_of(record) == "acme"
        await stream.cancel()
        cancel, record = await sent.next()
        assert isinstance(cancel, Cancel)
        assert sent.keys.signer_of(record) == "acme"
        token = stream.detach()
        resumed = await client.resume(token).start()
        await resumed.aclose()
        cancel, record = await sent.next()
        assert isinstance(cancel, Cancel)
        assert sent.keys.signer_of(record) == "acme"
        await client.stream("hello", job_id="j2").start()
        assert sent.keys.signer_of((await sent.next())[1]) == "acme"
    cancel, record = await sent.next()  # closing cancels what was not finished
    assert cancel == Cancel(id="j2", tenant="acme")
    assert sent.keys.signer_of(record) == "acme"


async def test_what_is_signed_is_the_topic_it_is_sent_to(tmp_path: Path) -> None:
    """A record for one topic is nobody's on another."""
    sent = Sent(tmp_path)
    async with sent.client(signer=sent.signer, topic="other") as client:
        await client.cancel("j1")
        await client.cancel("j1")
        assert sent.keys.signer_of((await sent.next(topic="other"))[1]) == "acme"
        record = (await sent.next(topic="jobs"))[1]
        with pytest.raises(SignatureError):
            sent.keys.signer_of(record)


async def test_a_client_without_a_key_sends_no_signature(tmp_path: Path) -> None:
    """Where nobody asks for signatures there is no such header."""
    sent = Sent(tmp_path)
    async with sent.client(signer=None) as client, FakeWorker.on_memory(sent.broker):
        await client.complete("hello")
    assert sent.broker.headers == [[]]


def test_check_tells_each_fault_of_the_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No folder, no key, a tenant without one, what is no key."""
    keys = tmp_path / "keys"
    flags = {"tenant_from": "signature", "tenant_keys": str(keys)}
    settings = load_settings(flags=flags).settings

    def check() -> tuple[bool, str]:
        report = Report()
        check_keys(settings, {"acme", "blackbeard"}, report)
        return report.failed, capsys.readouterr().out

    assert check() == (True, f"✗ keys      {keys}: No such file or directory\n")
    keys.mkdir()
    failed, told = check()
    assert failed
    assert "✗ keys      no tenant has one: every job is put aside" in told
    put_key(keys, "acme", Signer.new())
    failed, told = check()
    assert not failed
    assert "! keys      blackbeard has replies and no key: its jobs are put aside" in told
    assert "acme has replies and no key" not in told
    assert "✓ keys      1 of 1 tenants" in told
    (keys / "acme" / "notes.txt").write_text("hello")
    failed, told = check()
    assert failed
    assert "✗ keys      acme/notes.txt: not <key-id>.pem (lower case, digits, -)" in told


@pytest.mark.kafka
async def test_check_looks_at_the_keys(cluster: Cluster, aril: RunAril, tmp_path: Path) -> None:
    """The command knows from the topics which tenants have no key."""
    model = make_tiny_model(tmp_path / "tiny")
    put_key(tmp_path / "keys", "acme", Signer.new())
    env = cluster.env | {
        "ARIL_MODEL": str(model),
        "ARIL_TENANT_FROM": "signature",
        "ARIL_TENANT_KEYS": str(tmp_path / "keys"),
    }
    done = await aril("check", env=env)
    assert done.code == OK, done.out + done.err
    assert "! keys      blackbeard has replies and no key: its jobs are put aside" in done.out
    assert "acme has replies and no key" not in done.out
    assert "✓ keys      1 of 1 tenants" in done.out


def test_an_api_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is what the gateway's file has of it, standard error the key itself."""
    assert main(["keys", "http", "acme", "--name", 'the "web"']) == OK
    told = capsys.readouterr()
    key = told.err.splitlines()[-1]
    path = tmp_path / "keys.toml"
    path.write_text(told.out)
    caller = Keys(path).find(key)
    assert caller is not None
    assert (caller.name, caller.tenant) == ('the "web"', "acme")
    assert key not in told.out
    assert main(["keys", "http", "acme"]) == OK
    assert 'name = "acme"' in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["http", "Not_A_Tenant"],
        ["http", "acme", "--into", "."],
        ["http", "acme", "--name", ""],
        ["http", "acme", "--name", "a\nb"],
        ["new", "acme", "--name", "x"],
    ],
)
def test_api_keys_that_are_refused(arguments: list[str]) -> None:
    """Whatever does not go together is told in one line."""
    assert main(["keys", *arguments]) == USAGE
