"""`python -m audiobat` is the command `audiobat`."""

import sys

from audiobat.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
