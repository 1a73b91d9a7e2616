"""The published place of `mmpt tokenize`."""

import sys

from mmpt.cli.tokenize import main

if __name__ == "__main__":
    sys.exit(main())
