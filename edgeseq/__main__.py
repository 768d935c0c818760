"""`python -m edgeseq`."""

import sys

from edgeseq.cli import main

if __name__ == "__main__":
    sys.exit(main())
