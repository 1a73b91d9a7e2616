"""Imports packages in a process of its own, for `mmpt doctor`.

An import may crash the process, or never end. `python -m mmpt.cli.doctor_probes NAME` runs the
probe NAME, and prints its result as a line of JSON.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmpt

TIME_LIMIT_S = 120
"""Longest time of a probe. Imports take seconds, or longer on a network file system."""
Facts = dict[str, Any]


class ProbeError(Exception):
    """A probe has failed. The message is the last line of its stderr, or how its process ended."""

    @property
    def is_absent(self) -> bool:
        """True if a package is not installed, False if it is broken."""
        return str(self).startswith("ModuleNotFoundError")


def probe(name: str, timeout_s: float = TIME_LIMIT_S) -> Facts:
    """Runs a probe in a process of its own, and returns what it has found.

    Args:
        name: `torch`, `fairseq` or `hub`, or the import name of another package.
    Raises:
        ProbeError: it fails, crashes or does not end.
    """
    # The process must find this package, even if it is not installed.
    paths = [str(Path(mmpt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mmpt.cli.doctor_probes", name],
            env=environment,
            capture_output=True,
            timeout=timeout_s,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProbeError(f"did not end within {timeout_s:g} s") from None
    if done.returncode < 0:
        name_of_signal = signal.Signals(-done.returncode).name
        raise ProbeError(f"its import crashed ({name_of_signal})")
    if done.returncode > 0:
        lines = done.stderr.strip().splitlines() or ["its import failed"]
        raise ProbeError(lines[-1])
    # fairseq prints lines of its own.
    facts: Facts = json.loads(done.stdout.splitlines()[-1])
    return facts


def _probe_torch() -> Facts:
    import torch

    gpus = [_describe_gpu(number) for number in range(torch.cuda.device_count())]
    nccl = None
    if gpus and torch.distributed.is_nccl_available():
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "nccl": nccl,
    }


def _describe_gpu(number: int) -> tuple[str, str]:
    """Returns the name of a GPU, and why torch cannot use it ("": it can)."""
    import torch

    from mmpt.utils.device_check import device_problem

    problem = device_problem(f"cuda:{number}")
    try:
        properties = torch.cuda.get_device_properties(number)
    except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError):
        return f"GPU {number}", problem
    memory_gib = properties.total_memory / 2**30
    return f"{properties.name} ({memory_gib:.0f} GiB)", problem


def _probe_fairseq() -> Facts:
    importlib.import_module("mmpt.tasks.fairseqmmtask")  # it registers the task
    tasks = sys.modules["fairseq.tasks"]
    version = sys.modules["fairseq"].__version__
    return {"version": version, "task": "mmtask" in tasks.TASK_REGISTRY}


def _probe_hub() -> Facts:
    from huggingface_hub import constants, try_to_load_from_cache

    from mmpt.utils.hub_probe import hub_problem

    offline = constants.HF_HUB_OFFLINE
    cached = try_to_load_from_cache("bert-base-uncased", "config.json")
    return {
        "cached": isinstance(cached, str),
        "offline": offline,
        "problem": "" if offline else hub_problem(timeout_s=3),
        "url": constants.ENDPOINT,
    }


PROBES = {"torch": _probe_torch, "fairseq": _probe_fairseq, "hub": _probe_hub}


def main(argv: Sequence[str]) -> int:
    """Runs a probe in this process, and prints its result."""
    (name,) = argv
    if name in PROBES:
        facts = PROBES[name]()
    else:
        facts = {"version": importlib.import_module(name).__version__}
    print("\n" + json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
