"""Let `python -m sparsefield` be the command line."""

import sys

from sparsefield.cli import main

if __name__ == "__main__":
    sys.exit(main())
