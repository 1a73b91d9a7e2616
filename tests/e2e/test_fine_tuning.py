"""Fine-tuning on each benchmark from a checkpoint in the release's format, and scoring the result.

The data are the files of tests/support/e2e_data.py.
"""

import re
from pathlib import Path

import pytest
import torch

from mmpt.batch import Split
from mmpt.cli.scoring import predict
from mmpt.config import load_config
from mmpt.datasets import MMDataset
from mmpt.endtasks.crosstask.evaluation import CrossTaskMetric, CrossTaskPredictor
from mmpt.errors import CheckpointError
from mmpt.tasks import Task
from mmpt.utils.checkpoint_file import load_checkpoint
from tests.support.crosstask_data import write_crosstask
from tests.support.e2e_data import make_e2e_files
from tests.support.formula import fill_by_formula
from tests.support.jobs import ONE_EPOCH, QUICK, launch
from tests.support.paths import GOLDEN, ROOT

pytestmark = pytest.mark.e2e

NORTON, VIDEOCLIP = "projects/retri/norton", "projects/retri/videoclip"
PRETRAINED = GOLDEN / "checkpoint_norton_tiny.pt"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_e2e_files(tmp_path_factory.mktemp("e2e"))
    write_crosstask(
        folder / "data/crosstask", held_out=("v101-03", "v205-00", "v205-01")
    )
    return folder


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def small(files: Path, benchmark: str, **paths: str) -> list[str]:
    """Returns overrides that fit a YAML to the sizes of `PRETRAINED` and to generated files."""
    return [
        f"dataset.bert_name={files}/tinybert",
        "model.num_hidden_video_layers=2",
        "fairseq.dataset.num_workers=0",
        *(
            f"dataset.{key}={files}/data/{benchmark}/{name}"
            for key, name in paths.items()
        ),
    ]


def tune(yaml: str, save_dir: Path, overrides: list[str]) -> tuple[str, set[str]]:
    """Trains on the CPU from `PRETRAINED`.

    Returns:
        The log, and the names of the tensors that are new or have changed.
    """
    training = [
        f"fairseq.checkpoint.restore_file={PRETRAINED}",
        f"fairseq.checkpoint.save_dir={save_dir}",
        "fairseq.common.cpu=true",
        "fairseq.common.fp16=false",
        "fairseq.optimization.warmup_updates=1",
    ]
    run = launch([yaml, "--jobtype", "local_single", *QUICK, *training, *overrides])
    log = run.stdout + run.stderr
    assert run.returncode == 0, log[-3000:]
    before = load_checkpoint(PRETRAINED)["model"]
    after = load_checkpoint(save_dir / "checkpoint_last.pt")["model"]
    changed = set()
    for name, tensor in after.items():
        if name not in before or not torch.equal(before[name], tensor):
            changed.add(name.removeprefix("mmmodel."))
    return log, changed


def score(
    yaml: str, checkpoint: Path, folder: Path, overrides: list[str]
) -> dict[str, float]:
    paths = [f"fairseq.common_eval.path={checkpoint}", f"eval.save_path={folder}"]
    config = load_config(f"{yaml}.yaml", [*overrides, *paths])
    scores = predict(config, device=torch.device("cpu"), allow_missing=True)
    return scores.rows[0]["metrics"][config.metric[0]]


MSRVTT = {
    "train_path": "MSRVTT_train.9k.csv",
    "val_path": "MSRVTT_JSFUSION_test.csv",
    "json_path": "MSRVTT_data.json",
    "vfeat_dir": "msrvtt_feature_fps30_512",
}


def test_msrvtt(files: Path, tmp_path: Path) -> None:
    overrides = small(files, "msrvtt", **MSRVTT)
    batches = [ONE_EPOCH, "fairseq.dataset.batch_size=64"]
    log, changed = tune(f"{NORTON}/vtt_ft.yaml", tmp_path, [*overrides, *batches])
    # 8 videos, 20 times each, in batches of 64.
    assert re.search(r"num_updates 3\b", log)
    assert re.search(r"\| train \| .*clip_caption ", log)
    assert re.search(r"\| valid \| .*loss ", log)
    assert any("LayerNorm" not in name for name in changed)  # all weights are trained
    tests = small(
        files, "msrvtt", test_path=MSRVTT["val_path"], vfeat_dir=MSRVTT["vfeat_dir"]
    )
    numbers = score(
        f"{NORTON}/test_vtt_ft", tmp_path / "checkpoint_best.pt", tmp_path, tests
    )
    assert 0 <= numbers["R1"] <= numbers["R10"] <= 1


def test_multiple_choice_trains_to_find_the_caption_of_a_video(files: Path) -> None:
    task = Task.from_config(
        load_config(f"{NORTON}/vttqa_ft.yaml", small(files, "msrvtt", **MSRVTT))
    )
    training, validation = (
        task.build_dataset(Split.TRAIN),
        task.build_dataset(Split.VALID),
    )
    assert training is not None
    assert validation is not None
    assert (len(training), len(validation)) == (8 * 20, 24)
    model = fill_by_formula(task.build_model(pretrained=False), "hash").eval()
    batch = training.collate([training.item(index, 1) for index in range(8)])
    output = model(**batch)
    loss = task.build_loss()(**batch, **output).total
    scores = (output["pooled_video"] @ output["pooled_text"].T).detach().double()
    naive = -(scores.diagonal() - scores.exp().sum(dim=1).log()).mean()
    assert loss.item() == pytest.approx(naive.item(), rel=1e-5)  # 1e-7
    loss.backward()
    grads = {name: weight.grad for name, weight in model.named_parameters()}
    assert all(grad is not None for name, grad in grads.items() if "pooler" not in name)


def test_youcook(files: Path, tmp_path: Path) -> None:
    records = {
        "trainval_annotation": "youcookii_annotations_trainval.json",
        "vfeat_dir": "youcook_validation_feature_fps30_512",
    }
    paths = {"train_path": "youcook_val.pkl", "val_path": "youcook_val.pkl"}
    options = [ONE_EPOCH, "fairseq.dataset.batch_size=16", "dataset.max_missing=0.1"]
    overrides = [*small(files, "youcook", **records, **paths), *options]
    log, changed = tune(f"{VIDEOCLIP}/youcook_videoclip.yaml", tmp_path, overrides)
    assert (
        "1 of the 10 videos of the train split have no features (missing_video)" in log
    )
    assert re.search(r"num_updates 4\b", log)  # 54 clips
    assert any("LayerNorm" not in name for name in changed)
    tests = small(files, "youcook", **records, test_path="youcook_val.pkl")
    best = tmp_path / "checkpoint_best.pt"
    numbers = score(
        f"{VIDEOCLIP}/test_youcook_videoclip", best, tmp_path / "eval", tests
    )
    assert 0 <= numbers["R1"] < numbers["R10"] <= 1


def test_coin_trains_a_new_head_and_scores_it(files: Path, tmp_path: Path) -> None:
    common = small(files, "coin", vfeat_dir="coin_feature_fps30_512")
    splits = small(files, "coin", train_path="COIN.json", val_path="COIN.json")
    # The learning rate of the first update is 0.
    two = "fairseq.optimization.max_epoch=2"
    log, changed = tune(f"{NORTON}/coin_ft.yaml", tmp_path, [*common, *splits, two])
    head = [f"video_encoder.classifier.{name}" for name in ("bias", "weight")]
    assert f"kept the model's own {', '.join(head)}" in log
    assert re.search(r"\| train \| .*cross_entropy .*accuracy .*num_updates 2\b", log)
    assert re.search(r"\| valid \| .*cross_entropy ", log)
    assert set(head) < changed
    # The text tower is not trained.
    assert {name.partition(".")[0] for name in changed} == {"video_encoder"}

    tests = [*common, f"dataset.test_path={files}/data/coin/COIN.json"]
    last = tmp_path / "checkpoint_last.pt"
    assert 0 <= score(f"{NORTON}/test_coin_ft", last, tmp_path, tests)["frame_acc"] <= 1
    score(f"{NORTON}/test_coin_zs", last, tmp_path, tests)  # ignores the classifier
    with pytest.raises(
        CheckpointError, match=r"2 in the model only:\n.*video_encoder\.classifier"
    ):
        # This checkpoint has no trained classifier.
        score(f"{NORTON}/test_coin_ft", PRETRAINED, tmp_path, tests)


# The files of `write_crosstask` have the names of the keys.
CROSSTASK_KEYS = ("train_csv_path", "val_csv_path", "primary_path", "related_path")
CROSSTASK = {key: key for key in (*CROSSTASK_KEYS, "annotation_path", "vfeat_dir")}
SPLITS = {"train_path": "train_csv_path", "val_path": "train_csv_path"}


def test_crosstask(files: Path, tmp_path: Path) -> None:
    common = [*small(files, "crosstask", **CROSSTASK), "dataset.n_train=2"]
    splits = small(files, "crosstask", **SPLITS)
    log, _ = tune(
        f"{NORTON}/crosstask_ft.yaml", tmp_path, [*common, *splits, ONE_EPOCH]
    )
    # Two videos of each primary task.
    assert re.search(r"\| train \| .*binary_cross_entropy .*num_updates 4\b", log)
    assert re.search(r"\| valid \| .*binary_cross_entropy ", log)
    tests = [*common, f"dataset.test_path={files}/data/crosstask/val_csv_path"]
    best = tmp_path / "checkpoint_best.pt"
    tuned = score(f"{NORTON}/test_crosstask_ft", best, tmp_path, tests)
    zero_shot = score(f"{NORTON}/test_crosstask_zs", PRETRAINED, tmp_path, tests)
    assert tuned.keys() == zero_shot.keys() == {"101", "recall"}
    assert 0 <= tuned["recall"] <= 1


def test_crosstask_learns_what_the_features_show(files: Path) -> None:
    options = ["dataset.n_train=4", "model.random_init=true"]
    overrides = [*small(files, "crosstask", **CROSSTASK, **SPLITS), *options]
    task = Task.from_config(load_config(f"{NORTON}/crosstask_ft.yaml", overrides))
    torch.manual_seed(0)
    model, loss = task.build_model(pretrained=True), task.build_loss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    batches = {}
    for split in (Split.TRAIN, Split.VALID):
        items = task.build_dataset(split)
        assert isinstance(items, MMDataset)
        batches[split] = [items.collate([items[index]]) for index in range(len(items))]
    for _ in range(8):
        for batch in batches[Split.TRAIN]:
            optimizer.zero_grad()
            loss(**{**batch, **model(**batch)}).total.backward()
            optimizer.step()
    predictor, metric = CrossTaskPredictor(task.config.dataset), CrossTaskMetric()
    outputs = predictor(model, batches[Split.VALID], torch.device("cpu"))
    assert metric.chance(outputs)["recall"] < 0.3
    assert metric.compute(outputs)["recall"] > 0.8  # got 1.0, before training 0.25
