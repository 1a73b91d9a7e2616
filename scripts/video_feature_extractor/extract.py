"""The published place of `mmpt extract`."""

import sys

from mmpt.cli.extract import main

if __name__ == "__main__":
    sys.exit(main())
