"""Runs `mmpt tokenize`, at the path of the released software."""

import sys

from mmpt.cli.tokenize import main

if __name__ == "__main__":
    sys.exit(main())
