"""The published place of `mmpt pack`."""

import sys

from mmpt.cli.pack import main

if __name__ == "__main__":
    sys.exit(main())
