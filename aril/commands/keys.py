"""`aril keys`: make a tenant's key for signing jobs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aril.arguments import FAILED, OK, UsageError
from aril.schemas import is_tenant

if TYPE_CHECKING:
    import argparse

DESCRIPTION: Final = """\
Make an Ed25519 key for a tenant that signs its jobs (workers with ARIL_TENANT_FROM=signature). The
private half goes into a new file that only you may read: it stays with whoever sends the jobs. The
public half is printed, or put into the workers' folder of keys with --into: they see it within 5
seconds. Rotate by making another one; to revoke a key, remove its file from that folder."""

EXAMPLES: Final = """\
examples:
  aril keys new acme --into /etc/aril/keys            acme.key here, the public half there
  aril keys new acme --private new.key > public.pem   the operator puts the public half in place
  aril send -t acme --key acme.key "Hello!" """


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    parser.usage = "aril keys new TENANT [--private FILE] [--into FOLDER]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("action", choices=["new"], help="make a key")
    parser.add_argument("tenant", metavar="TENANT", help="who will sign with it")
    parser.add_argument(
        "--private", type=Path, metavar="FILE", help="the private half [default TENANT.key]"
    )
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="the workers' ARIL_TENANT_KEYS, for the public"
    )


def run(arguments: argparse.Namespace) -> int:
    """Make a key; return the exit code."""
    tenant = arguments.tenant
    if not is_tenant(tenant):
        raise UsageError(f"keys: {tenant!r} is not a tenant's name (lower case, digits, -)")
    if arguments.into is not None and not arguments.into.is_dir():
        raise UsageError(f"keys: {arguments.into} is not a folder")
    from aril.signer import Signer  # noqa: PLC0415 - cryptography, after the arguments are good

    signer = Signer.new()
    private = arguments.private or Path(f"{tenant}.key")
    public = f"{tenant}/{signer.key_id}.pem"
    try:
        signer.save(private)
        if arguments.into is not None:
            _put(arguments.into / public, signer.public_pem())
    except OSError as error:
        print(f"aril: keys: {error.filename}: {error.strerror}", file=sys.stderr)
        return FAILED
    print(f"{private}: the private key, for whoever sends {tenant}'s jobs", file=sys.stderr)
    if arguments.into is None:
        print(f"the public key, for <ARIL_TENANT_KEYS>/{public}:", file=sys.stderr, flush=True)
        print(signer.public_pem().decode(), end="")
    else:
        print(f"{arguments.into / public}: the public key, for the workers", file=sys.stderr)
    return OK


def _put(path: Path, pem: bytes) -> None:
    """Write a public key so that workers see all of it or nothing."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}")
    part.write_bytes(pem)
    part.replace(path)
