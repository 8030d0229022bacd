"""Keys of tenants: what a folder says, and which records a tenant is taken to have signed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

import aril.schemas
from aril.schemas import Job, limits
from aril.schemas.signature import SIGNATURE_HEADER, SignatureError, SignatureFault
from aril.signer import Signer
from aril.worker.intake import tenant_keys
from aril.worker.intake.tenant_keys import TenantKeys, TenantKeysError, read_keys
from aril.worker.job import Partition, Record
from aril.worker.observe.metrics import Metrics
from tests.support.signing import JOBS, keys_of, put_key, signed

VECTORS = json.loads(
    (Path(aril.schemas.__file__).parent / "vectors" / "signatures.json").read_text()
)
JOB = Job(id="j1", tenant="acme", prompt="hello")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder of keys."""
    (tmp_path / "keys").mkdir()
    return tmp_path / "keys"


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> tuple[TenantKeys, Signer, Record]:
    """Make keys of two tenants, acme's signer, and a record of acme's that holds."""
    folder = tmp_path_factory.mktemp("keys")
    signer = Signer.new()
    put_key(folder, "acme", signer)
    put_key(folder, "blackbeard", Signer.new())
    return keys_of(folder), signer, signed(JOB, signer)


def fault_of(keys: TenantKeys, record: Record) -> SignatureFault:
    """Return why a record is nobody's."""
    with pytest.raises(SignatureError) as caught:
        keys.signer_of(record)
    return caught.value.fault


@pytest.mark.parametrize(
    "vector", [pytest.param(each, id=each["name"]) for each in VECTORS["vectors"]]
)
def test_vectors(vector: dict[str, Any], folder: Path) -> None:
    """Each record is its signer's, or nobody's for the reason that its vector says."""
    key = VECTORS["key"]
    signer = Signer(
        Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key["private"])), key_id=key["key_id"]
    )
    put_key(folder, key["tenant"], signer)
    keys = TenantKeys(folder, age_seconds=vector["age_ms"] / 1_000, metrics=Metrics())
    told = vector["record"]
    record = Record(
        Partition(told["topic"], told["partition"]),
        0,
        told["timestamp_ms"],
        told["key"].encode(),
        bytes.fromhex(vector["hex"]),
        [(name, text.encode()) for name, text in vector["headers"]],
    )
    if "signer" in vector["expect"]:
        assert keys.signer_of(record) == vector["expect"]["signer"]
    else:
        assert fault_of(keys, record) == vector["expect"]["reason"]


@given(st.data())
def test_a_changed_byte_anywhere_is_refused(
    acme: tuple[TenantKeys, Signer, Record], data: st.DataObject
) -> None:
    """Value, key, topic, header: flip bits of any byte, and the record is nobody's."""
    keys, _, record = acme
    part = data.draw(st.sampled_from(["value", "key", "topic", "header"]))
    header = dict(record.headers)[SIGNATURE_HEADER]
    assert header is not None
    assert record.value is not None
    assert record.key is not None
    good = bytearray(
        {
            "value": record.value,
            "key": record.key,
            "topic": record.source.topic.encode(),
            "header": header,
        }[part]
    )
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 127 if part == "topic" else 255))
    bad = bytes(good)
    if part == "topic":
        record = replace(record, source=Partition(bad.decode(), 0))
    elif part == "header":
        record = replace(record, headers=[(SIGNATURE_HEADER, bad)])
    elif part == "key":
        record = replace(record, key=bad)
    else:
        record = replace(record, value=bad)
    assert fault_of(keys, record)


@given(st.data())
def test_bytes_added_or_taken_are_refused(
    acme: tuple[TenantKeys, Signer, Record], data: st.DataObject
) -> None:
    """Nothing can be moved between value and key, nor cut off, nor put behind."""
    keys, _, record = acme
    whole = (record.key or b"") + (record.value or b"")
    at = data.draw(st.integers(0, len(whole)).filter(lambda cut: whole[:cut] != record.key))
    assert fault_of(keys, replace(record, key=whole[:at], value=whole[at:]))
    more = data.draw(st.binary(min_size=1, max_size=8))
    assert fault_of(keys, replace(record, value=(record.value or b"") + more))
    assert fault_of(keys, replace(record, value=(record.value or b"")[: -len(more)]))


def test_a_record_holds_in_its_own_place_only(acme: tuple[TenantKeys, Signer, Record]) -> None:
    """A copy in another partition is nobody's: only in its own is its identity known."""
    keys, _, record = acme
    assert keys.signer_of(record) == "acme"
    assert keys.signer_of(replace(record, offset=7)) == "acme"
    elsewhere = replace(record, source=Partition(JOBS.topic, 1))
    assert fault_of(keys, elsewhere) is SignatureFault.INVALID


def test_what_has_no_value_or_key_or_too_much_is_nobodys(
    acme: tuple[TenantKeys, Signer, Record],
) -> None:
    """No tombstone and nothing over the bound of a request, however well it is signed."""
    keys, signer, record = acme
    for empty in (replace(record, value=None), replace(record, key=None)):
        assert fault_of(keys, empty) is SignatureFault.INVALID
    for empty in (signed(b"", signer), signed(JOB, signer, key=b"")):
        assert keys.signer_of(empty) == "acme"
        none = replace(empty, value=empty.value or None, key=empty.key or None)
        assert fault_of(keys, none) is SignatureFault.INVALID
    large = signed(b"x" * (limits.MAX_REQUEST_BYTES + 1), signer)
    assert fault_of(keys, large) is SignatureFault.INVALID
    assert keys.signer_of(signed(b"x" * limits.MAX_REQUEST_BYTES, signer)) == "acme"


def test_a_key_signs_for_its_tenant_only(folder: Path) -> None:
    """Another tenant's name over one's own key, and one's own over another's, are refused."""
    acme, beard = Signer.new(), Signer.new()
    put_key(folder, "acme", acme, key_id="one")
    put_key(folder, "blackbeard", beard, key_id="one")
    keys = keys_of(folder)
    as_acme = Signer(beard._key, key_id="one")
    assert fault_of(keys, signed(JOB, as_acme)) is SignatureFault.INVALID
    assert keys.signer_of(signed(JOB, as_acme, tenant="blackbeard")) == "blackbeard"
    assert fault_of(keys, signed(JOB, as_acme, tenant="ledgerly")) is SignatureFault.KEY_UNKNOWN


def test_one_key_under_two_names_cannot_be_relabelled(folder: Path) -> None:
    """Tenant and key id are signed: who registers another's public key gains no record of his."""
    signer = Signer.new()
    put_key(folder, "acme", signer)
    put_key(folder, "blackbeard", signer)
    put_key(folder, "acme", signer, key_id="old")
    keys, record = keys_of(folder), signed(JOB, signer)
    header = dict(record.headers)[SIGNATURE_HEADER]
    assert header is not None
    for name in (b"blackbeard." + signer.key_id.encode(), b"acme.old"):
        relabelled = header.replace(b"acme." + signer.key_id.encode(), name)
        assert relabelled != header
        bad = replace(record, headers=[(SIGNATURE_HEADER, relabelled)])
        assert fault_of(keys, bad) is SignatureFault.INVALID
    assert any("a key of acme, too" in problem for problem in read_keys(folder).problems)


def test_what_is_no_key_is_named_and_harms_no_other(folder: Path) -> None:
    """Each thing in the folder that is no tenant's key is a line; the good key beside it counts."""
    good = Signer.new()
    put_key(folder, "acme", good)
    elliptic = generate_ec(SECP256R1()).public_key()
    pem = elliptic.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    Signer.new().save(folder / "acme" / "private.pem")
    (folder / "acme" / "elliptic.pem").write_bytes(pem)
    (folder / "acme" / "text.pem").write_text("hello")
    (folder / "acme" / "half.pem").write_bytes(good.public_pem()[:60])
    (folder / "acme" / "long.pem").write_bytes(b"x" * 5_000)
    (folder / "acme" / "notes.txt").write_text("hello")
    (folder / "acme" / "Upper.pem").write_bytes(good.public_pem())
    (folder / "acme" / "folder.pem").mkdir()
    os.mkfifo(folder / "acme" / "pipe.pem")
    (folder / "acme" / "gone.pem").symlink_to(folder / "nowhere")
    (folder / "acme" / ".hidden").write_text("passed over")
    (folder / "empty").mkdir()
    (folder / "Not_A_Tenant").mkdir()
    (folder / "shared").mkdir()
    (folder / "file").write_text("")
    (folder / "..data").mkdir()
    found = read_keys(folder)
    assert list(found.keys) == [("acme", good.key_id)]
    problems = dict(problem.split(": ", 1) for problem in found.problems)
    assert set(problems) == {
        "acme/private.pem",
        "acme/elliptic.pem",
        "acme/text.pem",
        "acme/half.pem",
        "acme/long.pem",
        "acme/notes.txt",
        "acme/Upper.pem",
        "acme/folder.pem",
        "acme/pipe.pem",
        "acme/gone.pem",
        "empty",
        "Not_A_Tenant",
        "shared",
        "file",
    }
    assert "private key" in problems["acme/private.pem"]
    assert "Ed25519" in problems["acme/elliptic.pem"]
    assert all("\n" not in problem for problem in found.problems)


def test_a_mounted_volume_is_read_through_its_links(folder: Path) -> None:
    """Links to files and folders are followed: that is how Kubernetes mounts a Secret."""
    signer = Signer.new()
    put_key(folder / "..2026", "acme", signer)
    (folder / "..data").symlink_to("..2026")
    (folder / "acme").symlink_to("..data/acme")
    assert list(read_keys(folder).keys) == [("acme", signer.key_id)]


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path: Path) -> None:
    """A worker does not come up on a folder that is not there."""
    with pytest.raises(TenantKeysError, match=r"tenant keys: .*none: No such file or directory$"):
        keys_of(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(TenantKeysError, match="Not a directory"):
        keys_of(tmp_path / "file")


def take_away(folder: Path) -> None:
    """Let a folder not be there."""
    folder.rename(folder.with_name("away"))


def put_back_empty(folder: Path) -> None:
    """Let there be a folder again, with nothing in it."""
    folder.mkdir()


async def test_keys_come_and_go_without_a_restart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that appears is a key, one that is replaced is the new one, one that goes is none."""
    monkeypatch.setattr(tenant_keys, "RELOAD_SECONDS", 0.005)
    old, new = Signer.new(), Signer.new()
    first = put_key(folder, "acme", old)
    metrics = Metrics()
    keys = TenantKeys(folder, age_seconds=600, metrics=metrics)

    def who(signer: Signer) -> str | SignatureFault:
        try:
            return keys.signer_of(signed(JOB, signer))
        except SignatureError as error:
            return error.fault

    async def until(signer: Signer, expected: str) -> None:
        while who(signer) != expected:  # noqa: ASYNC110 - what a thread reads has no event
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(keys.watch())
    try:
        async with asyncio.timeout(60):
            assert who(new) is SignatureFault.KEY_UNKNOWN
            put_key(folder, "acme", new)
            await until(new, "acme")
            assert who(old) == "acme"
            assert metrics.registry.get_sample_value("aril_tenant_keys") == 2
            first.unlink()
            await until(old, SignatureFault.KEY_UNKNOWN)
            assert who(new) == "acme"
            named = Signer(new._key, key_id="name")
            put_key(folder, "acme", new, key_id="name")
            await until(named, "acme")
            put_key(folder, "acme", old, key_id="name")
            await until(named, SignatureFault.INVALID)
            assert who(Signer(old._key, key_id="name")) == "acme"
            # Its storage is away: what was known stays, until it can be read again.
            take_away(folder)
            while keys._failure is None:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)
            assert who(new) == "acme"
            put_back_empty(folder)
            await until(new, SignatureFault.KEY_UNKNOWN)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def test_no_key_and_no_payload_is_logged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is logged and told names keys by id; neither their bytes nor a record's appear."""
    signer = Signer.new()
    path = put_key(folder, "acme", signer)
    Signer.new().save(folder / "acme" / "private.pem")
    secret = (folder / "acme" / "private.pem").read_text().splitlines()[1]
    keys = keys_of(folder)
    record = signed(Job(id="j1", tenant="acme", prompt="a secret prompt"), Signer.new())
    with pytest.raises(SignatureError) as caught:
        keys.signer_of(record)
    told = str(caught.value) + repr(caught.value) + capsys.readouterr().out + repr(signer)
    assert signer.key_id in told
    for hidden in (secret, path.read_text().splitlines()[1], "secret prompt", "a secret"):
        assert hidden not in told
