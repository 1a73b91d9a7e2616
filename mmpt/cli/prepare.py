"""Makes shards and a training YAML from a folder of videos and their captions."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml

from mmpt.batch import Split
from mmpt.cli.app import Command
from mmpt.cli.devices import choose_device
from mmpt.config import RunConfig, load_config
from mmpt.errors import EXIT_CODE, DataError
from mmpt.media.frame_graph import FPS, SIZE
from mmpt.media.s3d import S3D_WEIGHTS
from mmpt.media.video_list import VideoJob, VideoList, find_videos
from mmpt.models.bert_weights import WEIGHT_FILES, read_bert_config
from mmpt.prepare.captions.caption_list import CaptionList
from mmpt.prepare.captions.corpus import write_line
from mmpt.prepare.captions.pretokenise import tokenise_captions
from mmpt.prepare.captions.reader import CAPTION_SUFFIXES, read_captions
from mmpt.prepare.check.dataset_check import check_dataset
from mmpt.prepare.features.clip_encoder import ClipEncoder
from mmpt.prepare.features.extraction import Extraction
from mmpt.prepare.features.feature_files import check_settings, extracting
from mmpt.prepare.features.network import open_network
from mmpt.prepare.own_videos import (
    batch_videos,
    fitting_settings,
    pair_captions,
    run_yaml,
    split_ids,
)
from mmpt.prepare.shards.packing import pack_features
from mmpt.shards.feature_reader import FeatureError, read_features
from mmpt.shards.writer import SHARD_SIZE
from mmpt.utils.io import atomic_write, remove_leftovers, write_json
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger, progress

MARKS = ("# Made by mmpt prepare", "# Made by scripts/prepare.py")
"""First line of the YAMLs that this command may overwrite; it writes the first one."""
DEFAULT_BERT = "bert-base-uncased"
logger = get_logger("prepare")


@dataclass
class Report:
    """What could not be used, and why."""

    videos_without_captions: dict[str, str] = field(default_factory=dict)  # id -> reason
    videos_without_features: dict[str, str] = field(default_factory=dict)  # id -> reason
    # Path -> why its name gives no id.
    videos_misnamed: dict[str, str] = field(default_factory=dict)
    # Id -> what is wrong; they are used.
    videos_damaged: dict[str, list[str]] = field(default_factory=dict)
    captions_without_video: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write it, and log how many there are."""
        write_json(path, vars(self))
        for name, entries in vars(self).items():
            if entries:
                logger.warning("%d %s; see %s", len(entries), name.replace("_", " "), path)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command."""

    videos: Annotated[Path, typer.Option(help="Folder of videos.")]
    captions: Annotated[Path, typer.Option(help="Folder of captions, named like the videos.")]
    out: Annotated[Path, typer.Option(help="Folder of the lists and shards.")] = Path("data/mine")
    yaml: Annotated[Path, typer.Option(help="The training YAML to write.")] = Path(
        "projects/retri/mine/pretrain.yaml"
    )
    recipe: Annotated[Literal["norton", "videoclip"], typer.Option(help="What to train.")] = (
        "norton"
    )
    bert_name: Annotated[str, typer.Option(help="Name on the hub, or a folder.")] = DEFAULT_BERT
    val_share: Annotated[float, typer.Option(help="Share of validation videos.")] = 0.05
    weights: Annotated[Path, typer.Option(help="S3D's weights.")] = S3D_WEIGHTS
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights",
            help="Try the pipeline: random S3D weights, and a YAML that starts from BERT.",
        ),
    ] = False
    shard_size: Annotated[int, typer.Option(min=1, help="Videos per shard.")] = SHARD_SIZE
    decoders: Annotated[int, typer.Option(min=1, help="Videos decoded at once.")] = 4
    workers: Annotated[int, typer.Option(min=1, help="Shards at once.")] = 1


def prepare(options: Options) -> int:
    """Make shards and a training YAML from a folder of videos and their captions.

    Run it again after a break and it continues. Captions (.vtt, .srt, WhisperX's or our .json) are
    named like their videos, perhaps with a language: `tea.mp4`, `tea.en.vtt`. What could not be
    used is listed, with the reason, in `<out>/report.json`.
    """
    recipe = load_config(_base(options))
    _check(options)
    videos = find_videos([str(options.videos)], options.out / "feat")
    with exclusive(options.out / ".prepare.lock", "preparing these videos"):
        remove_leftovers(options.out, r"report\.json|captions\.jsonl|(train|val)\.lst")
        if options.yaml.parent.is_dir():
            remove_leftovers(options.yaml.parent, re.escape(options.yaml.name))
        return _prepare(options, recipe, videos)


def _base(options: Options) -> str:
    """Return the YAML that the new one includes."""
    return f"projects/retri/{options.recipe}/how2_pretrain.yaml"


def _prepare(options: Options, recipe: RunConfig, videos: VideoList) -> int:
    report = Report(videos_misnamed=videos.misnamed)
    try:
        captions = _gather_captions(options, videos, report)
        extract_videos(options, [job for job in videos.jobs if job.video_id in captions], report)
        ids = _with_features(options.out / "feat", list(captions), report)
    finally:
        report.write(options.out / "report.json")
    batch = batch_videos(len(ids), options.recipe)
    train, val = split_ids(ids, options.val_share, batch)
    _write_captions(options.out / "captions.jsonl", captions)
    paths = _pack(options, train, val)
    settings = fitting_settings(len(train), batch, options.recipe, recipe.max_epoch)
    _write_yaml(options, paths, settings, f"{len(train)} training and {len(val)} validation videos")
    return _finish(options, load_config(options.yaml))


def _check(options: Options) -> None:
    """Refuses what would fail late."""
    if not 0 < options.val_share < 1:
        raise DataError(f"`--val-share` must be between 0 and 1, but is {options.val_share}.")
    if not options.captions.is_dir():
        raise DataError(
            f"{options.captions}: no such folder. Name where the captions are with `--captions`."
        )
    if options.yaml.exists():
        text = options.yaml.read_text(encoding="utf-8", errors="replace")
        if not text.startswith(MARKS):
            raise DataError(
                f"{options.yaml}: exists, and was not made by this command. Give another file with "
                "`--yaml`."
            )


# ---- the steps


def _gather_captions(options: Options, videos: VideoList, report: Report) -> dict[str, CaptionList]:
    """Read the captions of every video that has some."""
    pairs = pair_captions([job.video_id for job in videos.jobs], _caption_files(options.captions))
    report.captions_without_video = [str(path) for path in pairs.captions_alone]
    report.videos_without_captions = dict.fromkeys(pairs.videos_alone, "no caption file")
    captions = {}
    for video_id, path in progress(
        pairs.captions.items(), len(pairs.captions), "caption files read", logger
    ):
        try:
            found = read_captions(path)
        except DataError as err:
            report.videos_without_captions[video_id] = str(err)
            continue
        if found["start"]:
            captions[video_id] = found
        else:
            report.videos_without_captions[video_id] = f"{path}: no caption with text"
    return captions


def extract_videos(options: Options, jobs: Sequence[VideoJob], report: Report) -> None:
    """Makes `<out>/feat/<id>.npy` of the videos that have none; reports broken videos."""
    if not jobs:
        return
    folder = options.out / "feat"
    network, weights = open_network(options.weights, random_weights=options.random_weights)
    made_with = {"type": "s3d", "fps": FPS, "size": SIZE, "weights": weights, "dtype": "fp32"}
    made_with |= {"half_precision": 1, "l2_normalize": 1, "hflip": 0}  # the defaults of `extract`
    encoder = ClipEncoder(network, choose_device(None))
    with extracting(folder):
        check_settings(folder, made_with)
        found = Extraction(jobs, encoder, num_threads=options.decoders).run()
    report.videos_without_features, report.videos_damaged = found.failed, found.notes


def _caption_files(folder: Path) -> list[Path]:
    """Return the caption files of a folder and of its sub-folders, one level."""
    entries = sorted(folder.iterdir())
    entries += [path for sub in entries if sub.is_dir() for path in sorted(sub.iterdir())]
    return [
        path
        for path in entries
        if path.suffix.lower() in CAPTION_SUFFIXES
        and path.is_file()
        and not path.name.startswith(".")
    ]


def _with_features(folder: Path, ids: Sequence[str], report: Report) -> list[str]:
    """Return the ids whose features can be read."""
    usable = []
    for video_id in progress(ids, len(ids), "feature files looked at", logger):
        try:
            read_features(folder, video_id)
            usable.append(video_id)
        except FeatureError as err:
            report.videos_without_features.setdefault(video_id, str(err))
    return usable


def _write_captions(path: Path, captions: dict[str, CaptionList]) -> None:
    with atomic_write(path) as file:
        for video_id, one in captions.items():
            write_line(file, video_id, one)


def _pack(options: Options, train: list[str], val: list[str]) -> dict[str, str]:
    """Write lists and shards; return the keys of `dataset` that name them."""
    shards = options.out / "shards"
    lists = {Split.TRAIN: options.out / "train.lst", Split.VALID: options.out / "val.lst"}
    for (split, path), ids in zip(lists.items(), (train, val), strict=True):
        with atomic_write(path) as file:
            file.writelines(f"{video_id}\n" for video_id in ids)
        pack_features(
            options.out / "feat",
            shards,
            split,
            ids,
            shard_size=options.shard_size,
            workers=options.workers,
        )
    tfeat_dir = tokenise_captions(
        options.out / "captions.jsonl", shards, options.bert_name, workers=options.workers
    )
    return {
        "bert_name": options.bert_name,
        "train_path": str(lists[Split.TRAIN]),
        "val_path": str(lists[Split.VALID]),
        "vfeat_dir": str(shards),
        "tfeat_dir": tfeat_dir,
    }


def _write_yaml(
    options: Options, paths: dict[str, str], settings: dict[str, dict[str, Any]], what: str
) -> None:
    save_dir = f"runs/{options.out.name}/{options.recipe}"
    values = run_yaml(
        _base(options),
        paths,
        settings,
        save_dir,
        _model_keys(options.bert_name),
        from_scratch=options.random_weights,
    )
    with atomic_write(options.yaml) as file:
        file.write(f"{MARKS[0]}: {what}.\n")
        file.write("# Running it again overwrites this file. ")
        file.write("Put changes into a YAML that `includes` it.\n#\n")
        file.write(f"# Run:   mmpt train {options.yaml} --jobtype local_single\n")
        file.write(f"# Makes: {save_dir}/checkpoint_best.pt\n\n")
        yaml.safe_dump(values, file, sort_keys=False, allow_unicode=True)


def _model_keys(bert_name: str) -> dict[str, Any]:
    """Return what a small BERT, or one without weights, asks of `model`."""
    folder = Path(bert_name)
    if not folder.is_dir():
        return {}
    keys: dict[str, Any] = {}
    if (layers := read_bert_config(bert_name).num_hidden_layers) < 6:
        keys["num_hidden_video_layers"] = layers
    if not any((folder / name).is_file() for name in WEIGHT_FILES):
        logger.warning("%s holds no weights: the YAML says `random_init: true`", folder)
        keys["random_init"] = True
    return keys


def _finish(options: Options, config: RunConfig) -> int:
    """Check everything that was made, and say how to train on it."""
    found = check_dataset(config, workers=options.workers)
    print(found.table())
    for damage in found.damage:
        print(f"error: {damage}", file=sys.stderr)
    if found.damage:
        return EXIT_CODE
    start = config.option("checkpoint", "restore_file")
    if start is not None and not Path(start).exists():
        print(f"\nThe recipe starts from {start}, which is not there: mmpt download videoclip")
    print(f"\nTo train:\n  mmpt train {options.yaml} --jobtype local_single")
    return 0


main = Command(prepare, options=Options, stopped="run the same command again to continue")


if __name__ == "__main__":
    sys.exit(main())
