"""benchmarks/full_size.py works with 3,000 videos."""

import json

import numpy as np
import pytest

import full_size
from full_size_data import build, claim_folder, overrides, video_ids
from mmpt.batch import Split
from mmpt.config import load_config
from mmpt.tasks.task import Task


@pytest.mark.e2e
def test_the_loader_of_a_small_corpus_is_measured(tmp_path):
    folder = tmp_path / "data"
    out = tmp_path / "results.jsonl"
    options = ["--videos", "3000", "--workers", "1", "--part", "loader"]
    full_size.main([*options, "--folder", str(folder), "--out", str(out)])
    recorded = json.loads(out.read_text())["figures"]
    values = {figure["what"]: figure["ours"][0] for figure in recorded}
    assert values["loader, a core of workers"] > 0
    assert 0 <= values["loader, wait for data at 0.1 s a step"] < 100
    # 46 batches of 64 ids of 11 characters, in quotes, and commas: 0.04 MB.
    assert 0.03 < values["plan, file"] < 0.06
    assert not folder.exists()


def test_a_refresh_of_a_small_corpus_is_measured(tmp_path):
    figures = full_size.refresh_figures(tmp_path, 3000)
    values = {figure.what: figure.ours[0] for figure in figures}
    assert values["refresh, search"] > 0


def test_the_recipe_reads_the_generated_data(tmp_path):
    claim_folder(tmp_path, 5000)
    build(tmp_path, 5000)
    status = {path: path.stat() for path in tmp_path.glob("*.npy")}
    # The files are large but sparse.
    assert sum(file.st_size for file in status.values()) > 2e9
    assert sum(file.st_blocks * 512 for file in status.values()) < 1e8
    # Existing files are kept.
    build(tmp_path, 5000)
    for path, file in status.items():
        assert path.stat().st_mtime_ns == file.st_mtime_ns
    config = load_config(full_size.YAML, overrides(tmp_path))
    data = Task.from_config(config).build_dataset(Split.TRAIN)
    item = data[0]
    assert item["vfeats"].shape == (64 * 16, 16, 512)
    assert item["video_id"] == video_ids(5000, seed=0)[:64]
    keys, _ = data.meta[0]
    (captions,) = data.text(keys[:1])
    starts = np.array(captions["start"])
    assert (np.diff(starts) > 0).all()
    assert (np.array(captions["end"]) > starts).all()


def test_no_id_occurs_twice():
    ids = video_ids(5000, seed=0) + video_ids(5000, seed=1)
    assert len(set(ids)) == 10_000


@pytest.mark.parametrize("name", ["mine", "made.json"])
def test_a_folder_with_other_files_is_not_changed(tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"videos": 11, "captions": 68}))
    with pytest.raises(SystemExit, match="but holds other things"):
        full_size.main(["--videos", "10", "--folder", str(tmp_path)])
    assert list(tmp_path.iterdir()) == [tmp_path / name]
