"""Certificates that change on disk: each new connection uses what is there then."""

from __future__ import annotations

import asyncio
import os
import pty
import ssl
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from aril.connecting.certificates import CertificateFiles, FreshContext
from aril.connecting.errors import SecurityError
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LOCKED = "hunter2"
OPENSSLS_WORDS = (
    "self-signed certificate in certificate chain",
    "self signed certificate in certificate chain",  # before OpenSSL 3
)


@asynccontextmanager
async def server(folder: Path, authority: Authority, *, own: Authority) -> AsyncIterator[int]:
    """Run a server with a certificate by `own`, which tells its clients who they are."""
    authority_file = folder / "server-ca.pem"
    authority_file.write_bytes(authority.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority_file)
    context.verify_mode = ssl.CERT_REQUIRED
    # What clients ask of certificates on Python 3.13: those of tests have to pass on each version.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(*own.issue("server", server=True).write(folder, "server"))

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        subject = writer.get_extra_info("peercert")["subject"]
        writer.write(dict(each[0] for each in subject)["commonName"].encode())
        writer.close()

    running = await asyncio.start_server(tell, "127.0.0.1", 0, ssl=context)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()


async def seen_as(port: int, context: ssl.SSLContext) -> str:
    """Connect; return who we are to the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        return (await reader.read()).decode()
    finally:
        writer.close()


def trusted(folder: Path, authority: Authority) -> Path:
    """Write an authority's certificate, in one moment."""
    fresh, file = folder / "ca.new", folder / "ca.pem"
    fresh.write_bytes(authority.pem)
    fresh.replace(file)
    return file


async def test_new_connections_use_new_files(tmp_path: Path) -> None:
    """Own certificate and authorities: who was trusted before the change is not any more."""
    first, second = Authority("first"), Authority("second")
    ca = trusted(tmp_path, first)
    pair = first.issue("old").write(tmp_path, "own")
    context = FreshContext(CertificateFiles(ca, *pair))
    async with server(tmp_path, first, own=first) as port:
        assert await seen_as(port, context) == "old"
        first.issue("new").write(tmp_path, "own")
        assert await seen_as(port, context) == "new"
    async with server(tmp_path, first, own=second) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await seen_as(port, context)
        trusted(tmp_path, second)
        assert await seen_as(port, context) == "new"
    async with server(tmp_path, first, own=first) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await seen_as(port, context)


async def test_a_secret_that_kubernetes_replaces(tmp_path: Path) -> None:
    """There files are links through a folder's link, and only that is turned."""
    authority = Authority()
    ca = trusted(tmp_path, authority)
    for name in ("old", "new"):
        authority.issue(name).write(tmp_path / f"..{name}", "own")
    (tmp_path / "..data").symlink_to("..old")
    for name in ("own.pem", "own.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    context = FreshContext(CertificateFiles(ca, tmp_path / "own.pem", tmp_path / "own.key"))
    async with server(tmp_path, authority, own=authority) as port:
        assert await seen_as(port, context) == "old"
        (tmp_path / "turned").symlink_to("..new")
        (tmp_path / "turned").replace(tmp_path / "..data")
        assert await seen_as(port, context) == "new"


async def test_files_that_do_not_fit_leave_the_last_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate whose key has not come yet, a file half written or gone: told once each."""
    authority = Authority()
    ca = trusted(tmp_path, authority)
    certificate, key = authority.issue("old").write(tmp_path, "own")
    context = FreshContext(CertificateFiles(ca, certificate, key))
    new = authority.issue("new")
    async with server(tmp_path, authority, own=authority) as port:
        certificate.write_bytes(new.certificate)
        assert [await seen_as(port, context) for _ in range(3)] == ["old"] * 3
        assert caplog.text.count("not renewed") == 1
        key.write_bytes(new.key[: len(new.key) // 2])
        assert await seen_as(port, context) == "old"
        assert caplog.text.count("not renewed") == 2
        key.unlink()
        assert await seen_as(port, context) == "old"
        key.write_bytes(new.key)
        assert await seen_as(port, context) == "new"


async def test_why_a_broker_is_refused_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits for brokers learns what is wrong with their certificates, not at each attempt."""
    ours, theirs = Authority("ours"), Authority("theirs")
    pair = theirs.issue("own").write(tmp_path, "own")
    context = FreshContext(CertificateFiles(trusted(tmp_path, ours), *pair))
    async with server(tmp_path, theirs, own=theirs) as port:
        for _ in range(2):
            with pytest.raises(ssl.SSLCertVerificationError):
                await seen_as(port, context)
    (line,) = caplog.messages
    told = "a broker's certificate is refused: "
    assert line.removeprefix(told) in OPENSSLS_WORDS


async def test_a_key_behind_a_password(tmp_path: Path) -> None:
    """With it the key is used; without it, or with another, the file is named and nobody asked."""
    authority = Authority()
    ca = trusted(tmp_path, authority)
    pair = authority.issue("locked", password=LOCKED).write(tmp_path, "own")
    context = FreshContext(CertificateFiles(ca, *pair, LOCKED))
    async with server(tmp_path, authority, own=authority) as port:
        assert await seen_as(port, context) == "locked"
    for wrong in (None, "", "other", "x" * 5_000):
        with pytest.raises(SecurityError, match=f"ssl_keyfile: {pair[1]}: ") as caught:
            FreshContext(CertificateFiles(ca, *pair, wrong))
        assert "\n" not in str(caught.value)
        assert "other" not in str(caught.value)


async def test_no_password_is_asked_for_on_a_terminal(tmp_path: Path) -> None:
    """OpenSSL would ask there, and a worker would hang until somebody comes."""
    pair = Authority().issue("locked", password=LOCKED).write(tmp_path, "own")
    script = (
        "import pathlib, sys\n"
        "from aril.connecting.certificates import CertificateFiles\n"
        "from aril.connecting.errors import SecurityError\n"
        "try: CertificateFiles(None, *map(pathlib.Path, sys.argv[1:])).load()\n"
        "except SecurityError: sys.exit(7)"
    )
    ours, theirs = pty.openpty()
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *map(str, pair), stdin=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        async with asyncio.timeout(60):
            assert await done.wait() == 7
    finally:
        os.close(ours)


def test_bad_files_are_named(tmp_path: Path) -> None:
    """Each by the setting that names it."""
    authority = Authority()
    certificate, key = authority.issue("own").write(tmp_path, "own")
    rubbish, nowhere = tmp_path / "rubbish", tmp_path / "nowhere"
    rubbish.write_text("no PEM")
    other = authority.issue("other").write(tmp_path, "other")[1]
    for files, line in (
        (CertificateFiles(nowhere), f"ssl_cafile: {nowhere}: No such file or directory"),
        (CertificateFiles(rubbish), f"ssl_cafile: {rubbish}: "),
        (CertificateFiles(None, nowhere, key), f"ssl_certfile: {nowhere}: No such file"),
        (CertificateFiles(None, certificate, nowhere), f"ssl_keyfile: {nowhere}: No such file"),
        (CertificateFiles(None, certificate, rubbish), f"ssl_keyfile: {rubbish}: "),
        (CertificateFiles(None, certificate, other), f"ssl_keyfile: {other}: key values mismatch"),
        (CertificateFiles(None, certificate), f"ssl_certfile: {certificate}: "),
    ):
        with pytest.raises(SecurityError, match=line) as caught:
            FreshContext(files)
        assert "\n" not in str(caught.value)


def test_what_is_not_led_on_trusts_nobody(tmp_path: Path) -> None:
    """The context itself has no authorities and no certificate of ours."""
    context = FreshContext(CertificateFiles(trusted(tmp_path, Authority())))
    assert context.get_ca_certs() == []
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
