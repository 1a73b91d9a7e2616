"""`MomentIndex` finds the moment that shows a text, and refuses other models."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.errors import CheckpointError, DataError
from mmpt.inference import Moment, MomentIndex
from mmpt.inference.mmptmodel import MMPTModel
from tests.support.known_towers import known_model, seconds_of
from tests.support.paths import ROOT
from tests.support.tiny_run import make_run

TEXTS = ["cut the tomato", "mix the flour", "heat the pan", "stir it"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("index") / "run")


@pytest.fixture(scope="module")
def model(run) -> MMPTModel:
    return known_model(run)


@pytest.fixture(scope="module")
def videos(model) -> dict[str, np.ndarray]:
    """Two videos that show each text for 8 seconds in different orders, and one of noise."""
    cut, mix, heat, stir = TEXTS
    noise = np.random.default_rng(0).standard_normal((50, 512)) / 10
    return {
        "salad": seconds_of(model, (stir, 8), (cut, 8), (mix, 8)),
        "noise": noise,
        "soup": seconds_of(model, (mix, 16), (heat, 8), (cut, 3)),
    }


@pytest.fixture(scope="module")
def index(model, videos, tmp_path_factory) -> MomentIndex:
    folder = tmp_path_factory.mktemp("built") / "index"
    return MomentIndex.build(folder, model, videos, window_s=8, stride_s=4)


def test_the_best_moment_shows_the_text(index, model):
    best = []
    for moments in index.search(TEXTS, top=1):
        video, start, end, _ = moments[0]
        best.append((video, start, end))
    assert best == [
        ("salad", 8, 16),
        ("salad", 16, 24),
        ("soup", 16, 24),
        ("salad", 0, 8),
    ] or best[1] == ("soup", 0, 8)
    (cut,) = index.search(TEXTS[0], top=1)
    vector = model.encode_text(TEXTS[0])[0]
    # Vectors are rounded to float16.
    assert cut[0].score == pytest.approx(float(vector @ vector), rel=1e-3)


def test_results_do_not_overlap_and_are_sorted(index):
    for moments in index.search(TEXTS, top=20):
        scores = [moment.score for moment in moments]
        assert scores == sorted(scores, reverse=True)
        seconds = set()
        for moment in moments:
            own = {(moment.video, second) for second in range(moment.start, moment.end)}
            assert not own & seconds
            seconds |= own
    every = index.search(TEXTS[0], top=100, max_overlap=1)
    assert len(every[0]) == len(index.windows) == 5 + 12 + 6


def test_vectors_can_be_searched(index, model):
    vectors = model.encode_text(TEXTS)
    assert index.search(vectors) == index.search(TEXTS)
    assert index.search(vectors.numpy()) == index.search(TEXTS)
    with pytest.raises(DataError, match="must have the width of the index"):
        index.search(vectors[:, :5])
    with pytest.raises(DataError, match="`top` must be at least 1"):
        index.search(TEXTS, top=0)


def test_an_index_is_extended(model, videos, tmp_path):
    folder = tmp_path / "index"
    first = {"soup": videos["soup"]}
    before = MomentIndex.build(folder, model, first, window_s=8, stride_s=4)
    assert {moment.video for moment in before.search("stir it")[0]} == {"soup"}
    # The old index can be used while it is extended, and afterwards.
    after = MomentIndex.build(folder, model, videos)
    assert after.search("stir it", top=1)[0][0][:3] == ("salad", 0, 8)
    assert {moment.video for moment in before.search("stir it")[0]} == {"soup"}
    assert after.settings.num_videos == 3


@pytest.mark.slow
def test_load_finds_the_model_and_refuses_other_models(run, videos, tmp_path):
    tiny = MMPTModel.from_pretrained(run)
    folder = tmp_path / "index"
    built = MomentIndex.build(folder, tiny, videos, source=run)
    loaded = MomentIndex.load(folder)
    assert loaded.search(TEXTS) == built.search(TEXTS)
    assert all(isinstance(moment, Moment) for moment in loaded.search(TEXTS)[0])
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    assert MomentIndex.load(folder, copy).search(TEXTS) == built.search(TEXTS)

    state = torch.load(copy / "checkpoint_best.pt", weights_only=True)
    next(iter(state["model"].values())).add_(1)
    torch.save(state, copy / "checkpoint_best.pt")
    with pytest.raises(DataError, match="must be searched with the model that"):
        MomentIndex.load(folder, copy)


def test_the_error_for_a_model_that_has_moved_names_the_option(model, videos, tmp_path):
    folder = tmp_path / "index"
    MomentIndex.build(folder, model, videos, source=tmp_path / "moved.pt")
    advice = "If it has moved, give its new path with `--model`."
    with pytest.raises(CheckpointError) as caught:
        MomentIndex.load(folder)
    assert f"{tmp_path}/moved.pt: must be a YAML" in str(caught.value)
    assert advice in str(caught.value)
    with pytest.raises(CheckpointError) as caught:
        MomentIndex.load(folder, tmp_path / "other.pt")
    assert advice not in str(caught.value)


def test_an_index_without_a_model_and_an_unfinished_index(model, videos, tmp_path):
    folder = tmp_path / "index"
    MomentIndex.build(folder, model, videos)
    with pytest.raises(DataError, match="does not say where its model is"):
        MomentIndex.load(folder)
    assert MomentIndex.load(folder, model).settings.num_videos == 3
    with pytest.raises(DataError, match=r"must be a folder that `mmpt index` has made"):
        MomentIndex.load(tmp_path)
    with pytest.raises(DataError, match="features"):
        MomentIndex.build(tmp_path / "new", model, {"x": np.zeros((3, 3))})
    with pytest.raises(DataError, match="must be a finished index"):
        MomentIndex.load(tmp_path / "new")


def test_the_example_of_the_guide(run, videos, tmp_path, monkeypatch, capsys):
    guide = (ROOT / "docs" / "guides" / "embed-and-search.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (example,) = [each for each in examples if "MomentIndex.build" in each]
    monkeypatch.chdir(tmp_path)
    MMPTModel.from_pretrained(run).save_pretrained("my_model")
    np.save("pancakes.npy", videos["salad"])
    np.save("bread.npy", videos["soup"])
    exec(compile(example, "guide", "exec"), {})
    shown = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in shown} == {"pancakes", "bread"}


def test_moments_are_given_in_seconds_for_every_rate(index, model, videos, tmp_path):
    config = model.dataset_config.replace(feature_fps=2)
    faster = MMPTModel(model.fusion, config, model.model_config, normalise=False)
    rows = {name: np.repeat(seconds, 2, axis=0) for name, seconds in videos.items()}
    two = MomentIndex.build(tmp_path / "two", faster, rows, window_s=8, stride_s=4)
    pairs = zip(two.search(TEXTS, top=3), index.search(TEXTS, top=3), strict=True)
    for found, wanted in pairs:
        for moment, same in zip(found, wanted, strict=True):
            assert moment[:3] == same[:3]
    # Half a second at the end counts as a second.
    odd = {name: video[:-1] for name, video in rows.items()}
    shorter = MomentIndex.build(tmp_path / "odd", faster, odd, window_s=8, stride_s=4)
    assert shorter.settings.num_windows == index.settings.num_windows
    slower = config.replace(feature_fps=0.3)
    uneven = MMPTModel(model.fusion, slower, model.model_config, normalise=False)
    with pytest.raises(
        DataError, match=r"`--window` must be a whole number of feature"
    ):
        MomentIndex.build(tmp_path / "uneven", uneven, rows, window_s=8, stride_s=4)
