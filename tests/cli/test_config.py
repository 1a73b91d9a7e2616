"""`mmpt config`: the settings of a YAML with their origins, and the difference of two YAMLs."""

from pathlib import Path

import pytest

from mmpt.cli.main import main
from mmpt.config import load_config
from tests.support.jobs import NORTON, SCORES, VIDEOCLIP
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def rows_of(output: str) -> dict[str, list[str]]:
    """Returns the cells of each key in a table of differences."""
    _, *lines = output.splitlines()
    rows = [line.split() for line in lines]
    return {key: cells for key, *cells in rows}


def test_each_value_has_its_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", NORTON, "dataset.max_len=40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    origins = {}
    for line in lines:
        setting, _, comment = line.partition("  # ")
        origins[setting.strip()] = comment
    assert origins["max_len: 40"] == "override"
    assert origins["use_fast: true"] == "default"
    assert origins["input_dim: 512"] == "default"
    source = Path(NORTON).read_text().splitlines()
    number = source.index("  bert_name: data/demo/bert") + 1
    assert origins["bert_name: data/demo/bert"] == f"{NORTON}:{number}"
    included = "projects/retri/norton/how2_pretrain.yaml"
    source = Path(included).read_text().splitlines()
    number = source.index("  max_video_len: 16") + 1
    assert origins["max_video_len: 16"] == f"{included}:{number} (included)"


@pytest.mark.parametrize("yaml", [NORTON, VIDEOCLIP, SCORES])
def test_the_output_is_an_equal_yaml(
    yaml: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long_text = "dataset.bert_name='a # b " + "long " * 40 + "'"
    assert main(["config", yaml, long_text]) == 0
    copy = tmp_path / "copy.yaml"
    copy.write_text(capsys.readouterr().out)
    assert load_config(copy).to_dict() == load_config(yaml, [long_text]).to_dict()


def test_the_difference_of_two_yamls(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--diff", VIDEOCLIP, NORTON]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["fairseq.optimization.max_epoch"] == ["8", "5"]
    assert rows["model.layernorm_only"] == ["not", "set", "false"]
    assert "dataset.bert_name" not in rows
    first, second = (load_config(path) for path in (VIDEOCLIP, NORTON))
    num_cands = first.retrieval.num_cands, second.retrieval.num_cands
    assert ("num_cands" in rows) == (num_cands[0] != num_cands[1])


def test_overrides_apply_to_the_second_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["slurm.nodes=2", "metric=[A,B]"]
    assert main(["config", "--diff", SCORES, SCORES, *overrides]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["slurm.nodes"] == ["1", "2"]
    assert rows["metric"][-2:] == ['["A",', '"B"]']
    assert len(rows) == 2


def test_the_difference_that_overrides_make(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--diff", SCORES, "slurm.nodes=2"]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[0].split() == ["key", SCORES, SCORES, "slurm.nodes=2"]
    assert rows_of(output) == {"slurm.nodes": ["1", "2"]}


@pytest.mark.parametrize("words", [[], ["--diff", NORTON]])
def test_a_missing_yaml_is_an_error(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", *words]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: `mmpt config` needs a YAML, and with `--diff`")
    assert "mmpt config --diff A.yaml B.yaml" in message


def test_equal_yamls_have_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--diff", SCORES, SCORES]) == 0
    assert capsys.readouterr().out == "Both YAMLs give the same settings.\n"


@pytest.mark.parametrize(
    "words",
    [
        ["nowhere.yaml"],
        [NORTON, "dataset.max_len=0"],
        [NORTON, "no_equals_sign"],
        ["--diff", "nowhere.yaml", NORTON],
        ["--diff", NORTON, "nowhere.yaml"],
        ["--diff", NORTON, "dataset.max_len=0"],
    ],
)
def test_a_mistake_gives_one_error(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("error: ") == 1
    assert captured.out == ""
