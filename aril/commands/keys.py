"""`aril keys`: make a tenant's key, for signing jobs or for the gateway."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aril.arguments import FAILED, OK, UsageError
from aril.schemas import is_tenant

if TYPE_CHECKING:
    import argparse

MOST_NAME: Final = 100

DESCRIPTION: Final = """\
new: make an Ed25519 key for a tenant that signs its jobs (workers with ARIL_TENANT_FROM=signature).
The private half goes into a new file that only you may read: it stays with whoever sends the jobs.
The public half is printed, or put into the workers' folder of keys with --into: they see it within
5 seconds. Rotate by making another one; to revoke a key, remove its file from that folder.

http: make an API key for `aril gateway`. The key is shown once, on standard error, for whoever
asks; standard output has the lines for the gateway's file of keys, where only its hash stands."""

EXAMPLES: Final = """\
examples:
  aril keys new acme --into /etc/aril/keys            acme.key here, the public half there
  aril keys new acme --private new.key > public.pem   the operator puts the public half in place
  aril send -t acme --key acme.key "Hello!"
  aril keys http acme --name acme-web >> keys.toml    ARIL_GATEWAY_KEYS, seen within a second"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    own = "aril keys http TENANT [--name NAME]"
    parser.usage = f"aril keys new TENANT [--private FILE] [--into FOLDER]\n       {own}"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("action", choices=["new", "http"], help="which kind of key to make")
    parser.add_argument("tenant", metavar="TENANT", help="whose it will be")
    parser.add_argument(
        "--private", type=Path, metavar="FILE", help="the private half [default TENANT.key]"
    )
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="the workers' ARIL_TENANT_KEYS, for the public"
    )
    parser.add_argument("--name", help="http: what logs call the key [default TENANT]")


def run(arguments: argparse.Namespace) -> int:
    """Make a key; return the exit code."""
    tenant = arguments.tenant
    if not is_tenant(tenant):
        raise UsageError(f"keys: {tenant!r} is not a tenant's name (lower case, digits, -)")
    if arguments.action == "http":
        return _http(arguments)
    if arguments.name is not None:
        raise UsageError("keys: --name is for keys of the gateway (aril keys http)")
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


def _http(arguments: argparse.Namespace) -> int:
    """Print a new API key, and what the gateway's file has of it."""
    if arguments.private is not None or arguments.into is not None:
        raise UsageError("keys: --private and --into are for keys that sign (aril keys new)")
    name = arguments.tenant if arguments.name is None else arguments.name
    if not (0 < len(name) <= MOST_NAME and name.isprintable()):
        raise UsageError(f"keys: --name must have 1 to {MOST_NAME} printable characters")
    from aril.gateway.keys import hash_of, new_key  # noqa: PLC0415 - pydantic, as above

    key = new_key()
    print("the key, for whoever asks; it is shown only now:", file=sys.stderr)
    print(key, file=sys.stderr, flush=True)
    print(
        f"[[keys]]\nname = {_quoted(name)}\ntenant = {_quoted(arguments.tenant)}\n"
        f"sha256 = {_quoted(hash_of(key))}\n"
    )
    return OK


def _quoted(text: str) -> str:
    """Return TOML's form of a text that can be printed, which is JSON's."""
    return json.dumps(text, ensure_ascii=False)


def _put(path: Path, pem: bytes) -> None:
    """Write a public key so that workers see all of it or nothing."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}")
    part.write_bytes(pem)
    part.replace(path)
