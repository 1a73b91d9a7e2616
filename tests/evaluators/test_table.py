"""The tables against text written by hand."""

from mmpt.evaluators import render_markdown, render_table

CLIP = {"R1": 0.2421, "R5": 0.5, "R10": 1.0, "MR": 3.5, "v2t-R1": 0.0}
CHANCE = {"R1": 0.01, "R5": 0.05, "R10": 0.1, "MR": 50.5, "v2t-R1": 0.01}


def test_text_table_is_aligned_and_leaves_out_rows_without_numbers() -> None:
    table = render_table(
        {"chance": {"RetrievalMetric": CHANCE}, "norton": {"RetrievalMetric": CLIP}}
    )
    assert table.splitlines() == [
        "                                   chance   norton",
        "─" * 50,
        "clip, text to video, R@1              1.0     24.2",
        "clip, text to video, R@5              5.0     50.0",
        "clip, text to video, R@10            10.0    100.0",
        "clip, text to video, median rank     50.5      3.5",
        "clip, video to text, R@1              1.0      0.0",
    ]


def test_a_missing_number_is_shown_as_a_dash() -> None:
    columns = {
        "a": {"FullVideoRetrievalMetric": {"DTW-R1": 0.887}},
        "b": {"FullVideoRetrievalMetric": {"R1": 0.755}},
    }
    assert render_markdown(columns).splitlines() == [
        "|  | a | b |",
        "| --- | ---: | ---: |",
        "| full video, caption average, R@1 | - | 75.5 |",
        "| full video, DTW as published, R@1 | 88.7 | - |",
    ]


def test_short_tables_leave_out_details() -> None:
    videos = {"R1": 0.5, "DTW-R1": 0.4, "DTW-R5": 0.8, "DTW-corrected-R1": 0.3}
    results = {"RetrievalMetric": CLIP, "FullVideoRetrievalMetric": videos}
    for render in (render_table, render_markdown):
        table = render({"norton": results}, is_short=True)
        for number in ("24.2", "3.5", "0.0", "50.0", "40.0"):
            assert number in table
        assert "R@5" not in table
        assert "R@10" not in table
        assert "corrected" not in table


def test_many_long_names_stay_within_the_width() -> None:
    names = [f"runs/retri/norton/seed{n}/checkpoint_best{n}.pt" for n in range(7)]
    table = render_table({name: {"RetrievalMetric": CLIP} for name in names})
    assert max(map(len, table.splitlines())) <= 100
    assert table.count("clip, text to video, R@10") > 1  # stacked blocks
    assert all(f"/checkpoint_best{n}.pt" in table for n in range(7))
    assert table.count("24.2") == 7


def test_a_user_defined_metric_is_shown_with_its_name() -> None:
    assert (
        render_markdown({"a": {"MyMetric": {"hits": 0.5}}}).splitlines()[2]
        == "| MyMetric hits | 50.0 |"
    )
