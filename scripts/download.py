"""Runs `mmpt download`, at the path of the released software."""

import sys

from mmpt.cli.download import main

if __name__ == "__main__":
    sys.exit(main())
