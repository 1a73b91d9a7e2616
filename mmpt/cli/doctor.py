"""`mmpt doctor`: checks which parts of MMPT work here, and prints what to do for the others.

It is for machines on which something is broken. So this module imports no package that may be
broken, except for those that parse the command line and print the table.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated

from typer import Option

from mmpt.cli import doctor_machine as machine
from mmpt.cli import doctor_packages as packages
from mmpt.cli.doctor_uses import find_uses
from mmpt.cli.finding import Finding
from mmpt.cli.main import Command
from mmpt.cli.output import print_table

Check = Callable[[], Iterable[Finding]]
PYAV_USE = "videos (mmpt extract, mmpt prepare, mmpt embed --videos)"
GRADIO_USE = "the search page (mmpt app)"
CHECKS: Sequence[Check] = (
    machine.check_system,
    packages.check_python,
    packages.check_torch,
    packages.check_torchvision,
    packages.package_check("numpy", packages.INSTALL_TRAIN),
    packages.package_check("transformers", packages.INSTALL_TRAIN),
    packages.package_check("faiss", packages.INSTALL_TRAIN),
    packages.check_fairseq,
    packages.check_requirements,
    packages.package_check("av", packages.INSTALL_PREPARE, "optional", PYAV_USE),
    packages.package_check("gradio", packages.INSTALL_APP, "optional", GRADIO_USE),
    machine.check_ffmpeg,
    packages.check_hub,
    machine.check_cores,
    machine.check_memory,
    machine.check_disk,
    machine.check_shared_memory,
    machine.check_open_files,
    machine.check_slurm,
)
STYLES = {"ok": "green", "warning": "yellow", "missing": "bold red", "optional": "dim"}
"""State -> its style in a terminal."""
NUM_AT_ONCE = 4
"""Number of checks that run at the same time. Most of them wait for the import of a package."""


def run_checks(checks: Sequence[Check]) -> list[Finding]:
    """Runs all checks and returns what they find, in their order."""
    findings = []
    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        for found in pool.map(_run_check, checks):
            findings += found
    return findings


def _run_check(check: Check) -> list[Finding]:
    """Runs a check. If the check itself raises an error, its only finding is a warning."""
    try:
        return list(check())
    except Exception as err:
        name = getattr(check, "__name__", "check").removeprefix("check_")
        reason = f"could not be checked ({type(err).__name__}: {err})"
        return [Finding(name.replace("_", " "), "warning", reason)]


def doctor(
    *,
    to_json: Annotated[
        bool, Option("--json", help="Print everything as JSON.")
    ] = False,
) -> int:
    """Check whether training can run here, and print what to do if it cannot.

    Prints versions, the GPU, limits of this machine, and whether the model hub answers. The last
    rows are about training, several GPUs, preparation, inference and the search page. A package
    that is broken is reported like the others. The exit code is 0 if training can run, and 1 if
    something that it needs is missing. Writes nothing.
    """
    return report(CHECKS, to_json=to_json)


def report(checks: Sequence[Check], *, to_json: bool) -> int:
    """Runs the checks, prints what they find, and returns the exit code."""
    findings = run_checks(checks)
    missing = [finding.name for finding in findings if finding.state == "missing"]
    findings += find_uses(findings)
    if to_json:
        rows_json = [asdict(finding) for finding in findings]
        print(json.dumps({"can_train": not missing, "checks": rows_json}, indent=1))
        return int(bool(missing))
    rows = [(each.state, each.name, each.found, each.remedy) for each in findings]
    print_table(("state", "check", "found", "what to do"), rows, STYLES)
    if missing:
        print(f"\nTraining cannot run here, because of: {', '.join(missing)}.")
    else:
        print("\nTraining can run here.")
    return int(bool(missing))


main = Command(doctor, interrupt_message="run it again")
