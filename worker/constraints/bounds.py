"""What a constraint's compilation may take, for whoever tries it and whoever then does it."""

from typing import Final

STACK_BYTES: Final = 64 << 20
"""Of a thread, for rules that nest: the worst of the bounds' size needs 12 MiB. Virtual until it is
used."""
CPU_SECONDS: Final = 1.0
"""Of the processor, so that a busy machine refuses no more than an idle one."""
MEMORY_BYTES: Final = 256 << 20
