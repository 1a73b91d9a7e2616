"""The tables and figures of the results are written only between the marks of the page."""

import json
from pathlib import Path

import pytest

from experiments.__main__ import EXPERIMENTS
from experiments.arms import Run
from experiments.corpora import CORPORA
from experiments.figures import SHOWN
from experiments.offsets import CONSTANTS
from experiments.report import MARKED, PAGE, main
from experiments.tables import MAIN, OTHER

PAGE_TEXT = """Before.
<!-- results: control howto100m -->
Old text.
<!-- end of results -->
Between.
<!-- results: batch howto100m -->
<!-- end of results -->
<!-- results: dtw_offset howto100m -->
<!-- end of results -->
<!-- results: noise howto100m -->
<!-- end of results -->
After.
"""


def write_results(path: Path, names: tuple[str, ...]) -> None:
    """Writes results of two seeds for all arms of some experiments on the default corpus."""
    lines = {}
    for experiment in EXPERIMENTS:
        if experiment.name not in names:
            continue
        for seed in (0, 1):
            for number, arm in enumerate(experiment.arms(CORPORA["howto100m"])):
                run = Run.of(arm, CORPORA["howto100m"], seed)
                metrics: dict[str, dict[str, float]] = {}
                for column in (*SHOWN.values(), *MAIN, *OTHER):
                    value = 0.5 + 0.01 * number + 0.02 * seed * (number % 2)
                    metrics.setdefault(column.metric, {})[column.key] = value
                ways = ("DTW", "DTW-corrected", "OTAM")
                for name in ("Calibrated", "CalibratedBG"):
                    for way in ways:
                        metrics[name].setdefault(f"{way}-R1", 0.5)
                        metrics[name][f"{way}-constant"] = 8.0
                curve = {way: [0.5] * len(CONSTANTS) for way in ways}
                row = {
                    "run": run.key,
                    "arm": run.arm_key,
                    "seed": seed,
                    "commit": "abc1234",
                    "machine": "M",
                    "metrics": metrics,
                    "curves": {"clips": curve, "background": curve},
                }
                lines.setdefault(run.key, row)  # experiments share some runs
    path.write_text("".join(json.dumps(line) + "\n" for line in lines.values()))


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(PAGE_TEXT)
    return path


@pytest.mark.slow
def test_results_are_written_between_their_marks(page: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    write_results(results, ("control", "batch", "noise"))
    assert main(["--page", str(page), "--results", str(results)]) == 0
    text = page.read_text()
    # The rest of the page is unchanged.
    assert MARKED.sub(r"\1\4", text) == MARKED.sub(r"\1\4", PAGE_TEXT)
    assert "Old text." not in text
    # Arm 2 (B) has 52.0 and 52.0, arm 1 (plain) 51.0 and 53.0.
    assert "| B: targets from transport, against A | +0.0 ± 1.0 |" in text
    assert "Seeds 0, 1; commits abc1234." in text
    for name in ("control", "batch", "dtw_offset", "noise"):
        assert f"(images/{name}-howto100m.svg)" in text
        assert (tmp_path / "images" / f"{name}-howto100m.svg").stat().st_size > 5000


@pytest.mark.slow
def test_the_section_on_the_constant_has_one_table(page: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    write_results(results, ("control",))
    main(["--page", str(page), "--results", str(results)])
    sections = {match[2]: match[0] for match in MARKED.finditer(page.read_text())}
    assert sections["control"].count("| ---: |\n") == 4
    shown, _, on_click = sections["control"].partition("<details markdown")
    assert shown.count("| ---: |\n") == on_click.count("| ---: |\n") == 2
    assert sections["dtw_offset"].count("| ---: |\n") == 1
    # The recall of arm 1 is 51.0 and 53.0, and 50.0 with the constant 8.
    line = "| A: plain loss (control) | 52.0 ± 1.0 | 52.0 ± 1.0 | 8.0 ± 0.0 |"
    assert line in sections["dtw_offset"]


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(page: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    write_results(results, ("control",))
    arguments = ["--page", str(page), "--results", str(results)]
    figure = tmp_path / "images" / "control-howto100m.svg"
    main(arguments)
    first = page.read_bytes(), figure.read_bytes()
    main(arguments)
    assert (page.read_bytes(), figure.read_bytes()) == first


def test_a_page_without_results_contains_a_note(page: Path, tmp_path: Path) -> None:
    main(["--page", str(page), "--results", str(tmp_path / "none.jsonl")])
    assert page.read_text().count("No results yet.") == 4
    assert not (tmp_path / "images").exists()


def test_the_page_of_the_docs_has_all_experiments() -> None:
    marks = {(match[2], match[3]) for match in MARKED.finditer(PAGE.read_text())}
    wanted = {
        (experiment.name, corpus.name)
        for experiment in EXPERIMENTS
        for corpus in experiment.corpora
    }
    # These results need a file that is not shipped.
    needs_file = {name for name, corpus in marks - wanted if corpus == "youcook2"}
    assert needs_file == {"control", "dtw_offset", "retrieval"}
    assert len(marks - wanted) == len(needs_file)
    assert wanted <= marks


@pytest.mark.slow
def test_later_arms_without_runs_of_their_own_are_not_shown(
    page: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    for names, is_shown in ((("control",), False), (("control", "noise"), True)):
        write_results(results, names)
        assert main(["--page", str(page), "--results", str(results)]) == 0
        text = page.read_text()
        assert "| misaligned 0.5, plain loss |" in text  # the default of the corpus
        assert ("| tasks 5, plain loss |" in text) == is_shown
        assert "| tasks 20, plain loss |" not in text  # the same runs
        assert ("| tasks 5, Norton |" in text) == is_shown
