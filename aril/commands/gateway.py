"""`aril gateway`: HTTP in front of the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aril.arguments import CONNECTION, add_settings, loaded

if TYPE_CHECKING:
    import argparse

DESCRIPTION: Final = """\
Serve OpenAI's HTTP endpoints: requests become jobs on the queue, their answers are read from the
reply topics. It keeps no state of answers: start as many as you like behind one address. Streams
that break off go on at any of them, behind the last event (docs/gateway.md). Files and batches lie
in the folder --gateway-batches, which they may share.

Every flag is a setting: it can also come from the environment or a TOML file, flags being the
strongest. SIGTERM or Ctrl-C lets open answers end within --gateway-drain-seconds, a second one
stops at once."""

EXAMPLES: Final = """\
examples:
  aril gateway --gateway-tenant acme                   for programs of this machine, without keys
  aril keys http acme >> keys.toml
  aril gateway --gateway-keys keys.toml --gateway-http 0.0.0.0:8000
  ARIL_BOOTSTRAP=kafka:9092 ARIL_GATEWAY_KEYS=/etc/aril/keys.toml aril gateway"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    from aril.gateway.settings import GatewaySettings  # noqa: PLC0415 - only where it is needed

    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    own = [name for name in GatewaySettings.model_fields if name not in CONNECTION]
    add_settings(parser, {"gateway": own, "queue": CONNECTION}, GatewaySettings)


def run(arguments: argparse.Namespace) -> int:
    """Serve; return the exit code."""
    from aril.gateway.settings import GatewaySettings, load_gateway_settings  # noqa: PLC0415 - as above

    settings = loaded(GatewaySettings, load_gateway_settings, arguments).settings
    from aril.gateway.serve import run_gateway  # noqa: PLC0415 - the server, which is an extra

    return run_gateway(settings)
