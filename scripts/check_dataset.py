"""The published place of `mmpt check`."""

import sys

from mmpt.cli.check import main

if __name__ == "__main__":
    sys.exit(main())
