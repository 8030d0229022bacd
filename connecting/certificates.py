"""TLS by certificates that change on disk: each new connection uses what the files hold then.

A connection that stands is left alone: brokers look at certificates in the handshake only.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from aril.connecting.errors import SecurityError

if TYPE_CHECKING:
    from pathlib import Path

log: Final = logging.getLogger(__name__)  # clients connect as well, and set up no structlog

Stamp = tuple[int, int, int]


class CertificateFiles(NamedTuple):
    """Where authorities, certificate and key lie (PEM); None: the system's authorities, no own."""

    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None  # None: in the certificate's file
    password: str | None = None  # of the key

    def stamps(self) -> list[Stamp]:
        """Return what tells one state of the files from another. Raises OSError."""
        # Through links: Kubernetes replaces a mounted secret by turning one.
        found = [path.stat() for path in self[:3] if path is not None]
        return [(each.st_ino, each.st_mtime_ns, each.st_size) for each in found]

    def load(self) -> ssl.SSLContext:
        """Make a context of the files as they are. Raises SecurityError."""
        setting: str = "ssl_cafile"
        path = self.authorities
        try:
            context = ssl.create_default_context(cafile=self.authorities)
            if self.certificate is not None:
                setting, path = "ssl_certfile", self.certificate
                self.certificate.stat()  # else OpenSSL does not say which of the two is missing
                setting, path = ("ssl_keyfile", self.key) if self.key else (setting, path)
                # Always told: without a password OpenSSL asks for one on the terminal.
                context.load_cert_chain(self.certificate, self.key, lambda: self.password or "")
        except ssl.SSLError as error:
            why = (error.reason or "not PEM").replace("_", " ").lower()
            raise SecurityError(f"{setting}: {path}: {why}") from None
        except (OSError, ValueError) as error:  # a password of more than OpenSSL takes
            why = getattr(error, "strerror", None) or str(error)
            raise SecurityError(f"{setting}: {path}: {why}") from None
        return _telling(context)


def _telling(context: ssl.SSLContext) -> ssl.SSLContext:
    """Have it logged, once, why a broker's certificate is refused; aiokafka says no connection."""
    told: set[str] = set()

    class Handshake(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except ssl.SSLCertVerificationError as error:
                if error.verify_message not in told:
                    told.add(error.verify_message)
                    log.warning("a broker's certificate is refused: %s", error.verify_message)
                raise

    context.sslobject_class = Handshake
    return context


class FreshContext(ssl.SSLContext):
    """A client's context that hands each new connection on to one made of the files' last state.

    Files that cannot be used are logged once, and the last good state stays in use: a certificate
    and its key are not replaced in one moment. Raises SecurityError where there is no good state.
    """

    _files: CertificateFiles
    _stamps: list[Stamp]
    _refused: list[Stamp] | None
    _last_good: ssl.SSLContext

    def __new__(cls, files: CertificateFiles) -> Self:  # noqa: ARG004 - `__init__` takes them
        """Make a context that trusts nobody: what is not led on fails closed."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._refused = None
        self._last_good = files.load()
        self._stamps = files.stamps()

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin a connection, as asyncio does it."""
        self._look()
        return self._last_good.wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def _look(self) -> None:
        stamps: list[Stamp] = []
        try:
            # Asked first: what is replaced while it is read is read again.
            stamps = self._files.stamps()
            if stamps == self._stamps:
                return
            self._last_good = self._files.load()
        except (OSError, SecurityError) as error:
            if stamps != self._refused:
                log.warning("certificates are not renewed, the last ones stay: %s", error)
            self._refused = stamps
        else:
            log.info("certificates renewed")
            self._stamps, self._refused = stamps, None
