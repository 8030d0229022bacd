"""`python -m aril`."""

import sys

from aril.cli import main

if __name__ == "__main__":
    sys.exit(main())
