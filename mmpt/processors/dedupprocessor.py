"""The published place of `mmpt dedup`: `python -m mmpt.processors.dedupprocessor`."""

import sys

from mmpt.cli.dedup import main

if __name__ == "__main__":
    sys.exit(main())
