"""Runs the command `mmpt` as `python -m mmpt`."""

import sys

from mmpt.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
