"""A stand-in for training: `main` runs Python code in each process that the launcher starts.

`launch` starts the processes, like the launcher of a training run.
"""

from collections.abc import Sequence

from mmpt.cli.nodes import Nodes


def main(words: Sequence[str], name: str | None = None) -> int:
    """Runs the code `words[0]`, and returns 0 unless it raises or exits."""
    exec(words[0], {"name": name})
    return 0


def launch(arguments: Sequence[str]) -> int:
    """Returns the exit code of a job.

    Args:
        arguments: `fork` or `execute`, the number of processes, the code, and the highest number
            of restarts.
    """
    from mmpt.cli.processes import run

    way, size, code, restarts = arguments
    threads = 1 if way == "fork" else None
    nodes = Nodes(max_restarts=int(restarts))
    return run("tests.support.child", [code], int(size), nodes, num_threads=threads)
