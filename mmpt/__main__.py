"""`python -m mmpt` is the command `mmpt`."""

import sys

from mmpt.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
