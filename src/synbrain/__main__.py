"""``python -m synbrain``: the command line."""

import sys

from synbrain.cli import main

if __name__ == "__main__":
    sys.exit(main())
