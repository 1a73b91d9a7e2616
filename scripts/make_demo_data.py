"""The published place of `mmpt make-demo-data`."""

import sys

from mmpt.cli.make_demo_data import main

if __name__ == "__main__":
    sys.exit(main())
