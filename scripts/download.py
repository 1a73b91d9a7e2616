"""The published place of `mmpt download`."""

import sys

from mmpt.cli.download import main

if __name__ == "__main__":
    sys.exit(main())
