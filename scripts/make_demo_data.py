"""Runs `mmpt make-demo-data`, at the path of the released software."""

import sys

from mmpt.cli.make_demo_data import main

if __name__ == "__main__":
    sys.exit(main())
