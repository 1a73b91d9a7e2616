"""The published place of `mmpt prepare`."""

import sys

from mmpt.cli.prepare import main

if __name__ == "__main__":
    sys.exit(main())
