"""`python -m minisbert` is the command `minisbert`."""

import sys

from minisbert.cli import main

if __name__ == "__main__":
    sys.exit(main())
