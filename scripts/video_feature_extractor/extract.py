"""Runs `mmpt extract`, at the path of the released software."""

import sys

from mmpt.cli.extract import main

if __name__ == "__main__":
    sys.exit(main())
