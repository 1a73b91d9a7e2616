"""One training process of a job, as `torchrun` starts it.

    torchrun --nproc-per-node 2 -m mmpt.train YAML [key=value ..]

is another way to start the job of `mmpt train YAML --jobtype local_2`. `mmpt train` starts this
module, too, with the command line of fairseq that it has made.
"""

import sys
from collections.abc import Sequence

from mmpt.cli.rank import main

if __name__ == "__main__":
    argv: Sequence[str] = sys.argv[1:]
    sys.exit(main(argv))
