"""The parts of MMPT that work, according to the findings of the checks."""

import pytest

from mmpt.cli.doctor_uses import USES, find_uses
from mmpt.cli.finding import Finding, State

GPUS = ("system", "GPU", "NCCL")
PACKAGES = ("torch", "torchvision", "numpy", "transformers", "faiss", "av", "gradio")
ALL = [use.name for use in USES]


def uses_with(**states: State) -> dict[str, Finding]:
    """Returns the findings about the uses, by name. Checks without a state are ok."""
    findings = []
    for name in (*GPUS, *PACKAGES):
        state = states.get(name, "ok")
        remedy = "" if state == "ok" else f"install {name}"
        findings.append(Finding(name, state, "1.0", remedy))
    return {use.name: use for use in find_uses(findings)}


@pytest.mark.parametrize(
    ("states", "failing"),
    [
        ({}, []),
        ({"gradio": "optional"}, ["search page"]),
        ({"av": "optional"}, ["preparation", "search page"]),
        ({"GPU": "optional", "NCCL": "optional"}, ["several GPUs"]),
        ({"NCCL": "warning"}, ["several GPUs"]),
        # Windows: only training needs Linux.
        ({"system": "missing"}, ["training", "several GPUs"]),
        ({"system": "warning"}, []),
        ({"faiss": "missing"}, ["training", "several GPUs", "search page"]),
        ({"torch": "missing"}, ALL),
        ({"transformers": "missing"}, ALL),
    ],
)
def test_the_states_of_the_uses(states: dict[str, State], failing: list[str]) -> None:
    uses = uses_with(**states)
    assert list(uses) == ALL
    assert [name for name, use in uses.items() if use.state != "ok"] == failing


def test_only_training_makes_the_command_fail() -> None:
    uses = uses_with(torch="missing")
    missing = [use.name for use in uses.values() if use.state == "missing"]
    assert missing == ["training"]


def test_the_cause_and_the_remedy_are_reported() -> None:
    page = uses_with(gradio="optional")["search page"]
    assert page.found == "does not work, because of: gradio"
    assert page.remedy == "install gradio"
    page = uses_with(gradio="optional", av="optional")["search page"]
    assert page.found.endswith("av, gradio")
    assert page.remedy == "See these checks"
