"""Train or evaluate what a YAML file describes: `python locallaunch.py YAML --jobtype local_small
[key=value ..]`.
"""

import sys

from mmpt.cli.launch import main

if __name__ == "__main__":
    sys.exit(main())
