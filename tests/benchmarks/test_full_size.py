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
def test_a_small_run(tmp_path, monkeypatch):
    recorded = []
    monkeypatch.setattr(full_size, "record", recorded.extend)
    options = "--videos 3000 --workers 1 --part loader --folder"
    full_size.main([*options.split(), str(tmp_path / "data")])
    recorded += full_size.refresh_figures(tmp_path / "refresh", 3000)
    figures = {figure.what: figure.ours[0] for figure in recorded}
    assert figures["refresh, search"] > 0
    assert figures["loader, a core of workers"] > 0
    assert 0 <= figures["loader, wait for data at 0.1 s a step"] < 100
    # 46 batches of 64 ids of 11 characters, in quotes, and commas: 0.04 MB.
    assert 0.03 < figures["plan, file"] < 0.06
    assert not (tmp_path / "data").exists()


def test_the_recipe_reads_the_generated_data(tmp_path):
    claim_folder(tmp_path, 5000)
    build(tmp_path, 5000)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    build(tmp_path, 5000)
    # Existing files are kept.
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")} == files
    held = sum(path.stat().st_blocks * 512 for path in files)
    assert sum(path.stat().st_size for path in files) > 2e9 > 1e8 > held
    config = load_config(full_size.YAML, overrides(tmp_path))
    data = Task.from_config(config).build_dataset(Split.TRAIN)
    item = data[0]
    assert item["vfeats"].shape == (64 * 16, 16, 512)
    assert item["video_id"] == video_ids(5000, seed=0)[:64]
    assert len(set(video_ids(5000, seed=0)) | set(video_ids(5000, seed=1))) == 10_000
    key = data.meta[0][0][0]
    captions = data.text([key])[0]
    assert (np.diff(captions["start"]) > 0).all()
    assert (np.array(captions["end"]) > captions["start"]).all()


@pytest.mark.parametrize("name", ["mine", "made.json"])
def test_a_folder_with_other_files_is_not_changed(tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"videos": 11, "captions": 68}))
    with pytest.raises(SystemExit, match="holds other things"):
        full_size.main(["--videos", "10", "--folder", str(tmp_path)])
    assert list(tmp_path.iterdir()) == [tmp_path / name]
