"""Trains or evaluates what YAML files describe; the same as `mmpt train`.

python locallaunch.py YAML[,YAML..] --jobtype local_small [key=value ..]
"""

import sys

from mmpt.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
