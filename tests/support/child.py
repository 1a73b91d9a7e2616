"""A module for `mmpt.cli.processes.run`: its `main` runs Python code.

    python -m tests.support.child fork|execute SIZE CODE

runs the code in SIZE processes, and ends with the exit code of the job.
"""

import sys
from collections.abc import Sequence


def main(words: Sequence[str], name: str | None = None) -> int:
    """Runs the code `words[0]`, and returns 0 unless it raises or exits."""
    exec(words[0], {"name": name})
    return 0


if __name__ == "__main__":
    from mmpt.cli.processes import run

    way, size, code = sys.argv[1:]
    threads = 1 if way == "fork" else None
    sys.exit(run("tests.support.child", [code], int(size), num_threads=threads))
