"""Runs `mmpt pack`, at the path of the released software."""

import sys

from mmpt.cli.pack import main

if __name__ == "__main__":
    sys.exit(main())
