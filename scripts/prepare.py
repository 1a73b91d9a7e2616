"""Runs `mmpt prepare`, at the path of the released software."""

import sys

from mmpt.cli.prepare import main

if __name__ == "__main__":
    sys.exit(main())
