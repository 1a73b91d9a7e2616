"""The table of outcomes, as Markdown, and its place in the documentation."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from statistics import median

from benchmarks.results import commit, machine
from tests.support.chaos.phases import PHASES
from tests.support.chaos.trial import Outcome
from tests.support.pages import write_marked
from tests.support.paths import ROOT

DOCUMENT = ROOT / "docs/reliability.md"
HEAD = (
    "| interruption | processes | trials | "
    + " | ".join(f"in {phase}" for phase in PHASES)
    + " | identical | lost updates | seconds to recover |"
)


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yields the lines of a table with a row for each kind and number of processes."""
    yield HEAD
    yield "|---|" + "---:|" * (HEAD.count("|") - 2)
    for row in dict.fromkeys(one.row for one in outcomes):
        yield table_row([one for one in outcomes if one.row == row])


def table_row(outcomes: Sequence[Outcome]) -> str:
    """Returns the row of outcomes of one kind."""
    phases = Counter(one.phase for one in outcomes)
    is_known = any(phases[phase] for phase in PHASES)
    seconds = [one.recovery_s for one in outcomes]
    cells = [outcomes[0].kind, outcomes[0].size, len(outcomes)]
    cells += [phases[phase] if is_known else "" for phase in PHASES]
    cells.append(sum(not one.different for one in outcomes))
    cells.append(max(one.lost_updates for one in outcomes))
    cells.append(f"{median(seconds):.1f} (at most {max(seconds):.1f})")
    return "| " + " | ".join(map(str, cells)) + " |"


def source(command: str) -> str:
    """Returns a sentence with the date, the command, the commit and the machine."""
    return f"Measured on {date.today()} with `{command}`, commit {commit()}, on {machine()}."


def write(text: str, path: Path = DOCUMENT) -> None:
    """Replaces the table of a document."""
    write_marked(path, "chaos", f"{text}\n")
