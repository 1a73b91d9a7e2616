"""Summary of `mmpt doctor`: which parts of MMPT work here, based on the findings of its
checks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mmpt.cli.finding import Finding, State

INFERENCE = ("torch", "torchvision", "numpy", "transformers")


@dataclass(frozen=True)
class Use:
    """A part of MMPT."""

    name: str
    commands: str
    needs: Sequence[str] = ()
    """Names of the checks that must be ok."""
    trains: bool = False
    """True if this part also needs every check that a training run needs."""


TRAINING = Use("training", "mmpt train, demo", trains=True)
USES = (
    TRAINING,
    Use("several GPUs", "also on several machines", ("GPU", "NCCL"), trains=True),
    Use("preparation", "mmpt extract, prepare", (*INFERENCE, "av")),
    Use("inference", "MMPTModel, mmpt predict, embed", INFERENCE),
    Use("search page", "mmpt app", (*INFERENCE, "faiss", "av", "gradio")),
)


def find_uses(findings: Sequence[Finding]) -> list[Finding]:
    """Returns for each part of MMPT whether it works, and what to do if it does not.

    Args:
        findings: the findings of all checks.
    """
    found = []
    for use in USES:
        absent = []
        for finding in findings:
            is_needed = finding.name in use.needs and finding.state != "ok"
            if is_needed or (use.trains and finding.state == "missing"):
                absent.append(finding)
        if not absent:
            found.append(Finding(use.name, "ok", f"works ({use.commands})"))
            continue
        names = ", ".join(finding.name for finding in absent)
        remedies = {finding.remedy for finding in absent if finding.remedy}
        remedy = remedies.pop() if len(remedies) == 1 else ""
        if remedies:
            remedy = "See these checks"
        state: State = "missing" if use is TRAINING else "optional"
        reason = f"does not work, because of: {names}"
        found.append(Finding(use.name, state, reason, remedy))
    return found
