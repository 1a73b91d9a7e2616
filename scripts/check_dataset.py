"""Runs `mmpt check`, at the path of the released software."""

import sys

from mmpt.cli.check import main

if __name__ == "__main__":
    sys.exit(main())
