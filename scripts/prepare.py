"""From a folder of videos and their captions to a YAML that trains on them; run it again after a break and it goes on.

    python scripts/prepare.py --videos raw --captions captions --out data/mine --yaml projects/retri/mine/pretrain.yaml

Captions (.vtt, .srt, WhisperX's or our .json) are called like their videos, perhaps with a language: `tea.mp4`,
`tea.en.vtt`. What could not be used is listed, with the reason, in `<out>/report.json`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from mmpt.batch import Split
from mmpt.config import RunConfig, load_config
from mmpt.errors import EXIT_CODE, DataError
from mmpt.evaluators import file_fingerprint
from mmpt.media.frame_graph import FPS, SIZE
from mmpt.media.s3d import S3D, S3D_WEIGHTS, load_s3d
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
from mmpt.prepare.own_videos import MAX_BATCH, batch_videos, fitting_settings, pair_captions, run_yaml, split_ids
from mmpt.prepare.shards.packing import pack_features
from mmpt.shards.feature_reader import FeatureError, read_features
from mmpt.shards.writer import SHARD_SIZE
from mmpt.utils.command import run_command
from mmpt.utils.io import atomic_write, remove_leftovers, write_json
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger, progress

MARK = "# Made by scripts/prepare.py"
DEFAULT_BERT = "bert-base-uncased"
logger = get_logger("prepare")


@dataclass
class Report:
    """What could not be used, and why."""

    videos_without_captions: dict[str, str] = field(default_factory=dict)  # id -> reason
    videos_without_features: dict[str, str] = field(default_factory=dict)  # id -> reason
    videos_misnamed: dict[str, str] = field(default_factory=dict)  # path -> why its name gives no id
    videos_damaged: dict[str, list[str]] = field(default_factory=dict)  # id -> what is wrong; they are used
    captions_without_video: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write it, and log how many there are."""
        write_json(path, vars(self))
        for name, entries in vars(self).items():
            if entries:
                logger.warning("%d %s; see %s", len(entries), name.replace("_", " "), path)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(lambda: _run(_parser().parse_args(argv)), stopped="run the same command again to go on")


def _run(args: argparse.Namespace) -> int:
    recipe = load_config(_base(args))
    _check(args)
    videos = find_videos([args.videos], args.out / "feat")
    with exclusive(args.out / ".prepare.lock", "preparing these videos"):
        remove_leftovers(args.out, r"report\.json|captions\.jsonl|(train|val)\.lst")
        if args.yaml.parent.is_dir():
            remove_leftovers(args.yaml.parent, re.escape(args.yaml.name))
        return _prepare(args, recipe, videos)


def _base(args: argparse.Namespace) -> str:
    """Return the YAML that the new one includes."""
    return f"projects/retri/{args.recipe}/how2_pretrain.yaml"


def _prepare(args: argparse.Namespace, recipe: RunConfig, videos: VideoList) -> int:
    report = Report(videos_misnamed=videos.misnamed)
    try:
        captions = _gather_captions(args, videos, report)
        extract_videos(args, [job for job in videos.jobs if job.video_id in captions], report)
        ids = _with_features(args.out / "feat", list(captions), report)
    finally:
        report.write(args.out / "report.json")
    batch = batch_videos(len(ids), args.recipe)
    train, val = split_ids(ids, args.val_share, batch)
    _write_captions(args.out / "captions.jsonl", captions)
    paths = _pack(args, train, val)
    settings = fitting_settings(len(train), batch, args.recipe, recipe.max_epoch)
    _write_yaml(args, paths, settings, f"{len(train)} training and {len(val)} validation videos")
    return _finish(args, load_config(args.yaml))


def _check(args: argparse.Namespace) -> None:
    """Refuse what would fail late."""
    if not 0 < args.val_share < 1:
        raise DataError(f"`--val-share` must be between 0 and 1, but is {args.val_share}.")
    for flag, value in (("--shard-size", args.shard_size), ("--decoders", args.decoders), ("--workers", args.workers)):
        if value < 1:
            raise DataError(f"`{flag}` must be at least 1, but is {value}.")
    if not args.captions.is_dir():
        raise DataError(f"{args.captions}: no such folder. Name where the captions are with `--captions`.")
    if args.yaml.exists() and not args.yaml.read_text(encoding="utf-8", errors="replace").startswith(MARK):
        raise DataError(f"{args.yaml}: exists, and was not made by this command. Give another file with `--yaml`.")


# ---- the steps


def _gather_captions(args: argparse.Namespace, videos: VideoList, report: Report) -> dict[str, CaptionList]:
    """Read the captions of every video that has some."""
    pairs = pair_captions([job.video_id for job in videos.jobs], _caption_files(args.captions))
    report.captions_without_video = [str(path) for path in pairs.captions_alone]
    report.videos_without_captions = dict.fromkeys(pairs.videos_alone, "no caption file")
    captions = {}
    for video_id, path in progress(pairs.captions.items(), len(pairs.captions), "caption files read", logger):
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


def extract_videos(args: argparse.Namespace, jobs: Sequence[VideoJob], report: Report) -> None:
    """Make `<out>/feat/<id>.npy` of these videos, where it is not there yet; a broken video is reported."""
    if not jobs:
        return
    folder = args.out / "feat"
    network, weights = _network(args)
    how = {"type": "s3d", "fps": FPS, "size": SIZE, "weights": weights, "dtype": "fp32"}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with extracting(folder):
        check_settings(folder, how | {"half_precision": 1, "l2_normalize": 1, "hflip": 0})  # as extract.py by default
        found = Extraction(jobs, ClipEncoder(network, device), num_threads=args.decoders).run()
    report.videos_without_features, report.videos_damaged = found.failed, found.notes


def _network(args: argparse.Namespace) -> tuple[S3D, str]:
    """Return S3D, and what its weights are; random ones are the same at every call."""
    if not args.random_weights:
        return load_s3d(args.weights), f"sha256 {file_fingerprint(args.weights)}"
    logger.warning("random weights: these features are good for nothing but trying the pipeline")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return S3D(), "random, seed 0"


def _caption_files(folder: Path) -> list[Path]:
    """Return the caption files of a folder and of its sub-folders, one level."""
    entries = sorted(folder.iterdir())
    entries += [path for sub in entries if sub.is_dir() for path in sorted(sub.iterdir())]
    return [
        path
        for path in entries
        if path.suffix.lower() in CAPTION_SUFFIXES and path.is_file() and not path.name.startswith(".")
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


def _pack(args: argparse.Namespace, train: list[str], val: list[str]) -> dict[str, str]:
    """Write lists and shards; return the keys of `dataset` that name them."""
    shards = args.out / "shards"
    lists = {Split.TRAIN: args.out / "train.lst", Split.VALID: args.out / "val.lst"}
    for (split, path), ids in zip(lists.items(), (train, val), strict=True):
        with atomic_write(path) as file:
            file.writelines(f"{video_id}\n" for video_id in ids)
        pack_features(args.out / "feat", shards, split, ids, shard_size=args.shard_size, workers=args.workers)
    tfeat_dir = tokenise_captions(args.out / "captions.jsonl", shards, args.bert_name, workers=args.workers)
    return {
        "bert_name": args.bert_name,
        "train_path": str(lists[Split.TRAIN]),
        "val_path": str(lists[Split.VALID]),
        "vfeat_dir": str(shards),
        "tfeat_dir": tfeat_dir,
    }


def _write_yaml(
    args: argparse.Namespace, paths: dict[str, str], settings: dict[str, dict[str, Any]], what: str
) -> None:
    save_dir = f"runs/{args.out.name}/{args.recipe}"
    values = run_yaml(
        _base(args), paths, settings, save_dir, _model_keys(args.bert_name), from_scratch=args.random_weights
    )
    with atomic_write(args.yaml) as file:
        file.write(f"{MARK}: {what}.\n")
        file.write("# Running that again overwrites it: put changes into a YAML that `includes` this one.\n#\n")
        file.write(f"# Run:   python locallaunch.py {args.yaml} --jobtype local_single\n")
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


def _finish(args: argparse.Namespace, config: RunConfig) -> int:
    """Check everything that was made, and say how to train on it."""
    found = check_dataset(config, workers=args.workers)
    print(found.table())
    for damage in found.damage:
        print(f"error: {damage}", file=sys.stderr)
    if found.damage:
        return EXIT_CODE
    start = config.option("checkpoint", "restore_file")
    if start is not None and not Path(start).exists():
        print(f"\nThe recipe starts from {start}, which is not there: python scripts/download.py videoclip")
    print(f"\nTo train:\n  python locallaunch.py {args.yaml} --jobtype local_single")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("--videos", required=True, type=Path, help="folder of videos")
    parser.add_argument("--captions", required=True, type=Path, help="folder of captions, called like the videos")
    parser.add_argument("--out", default=Path("data/mine"), type=Path, help="folder of what is made (%(default)s)")
    parser.add_argument("--yaml", default=Path("projects/retri/mine/pretrain.yaml"), type=Path, help="(%(default)s)")
    parser.add_argument("--recipe", default="norton", choices=sorted(MAX_BATCH), help="what to train (%(default)s)")
    parser.add_argument("--bert-name", default=DEFAULT_BERT, help="hub name or folder (%(default)s)")
    parser.add_argument("--val-share", default=0.05, type=float, help="share of validation videos (%(default)s)")
    parser.add_argument("--weights", default=S3D_WEIGHTS, type=Path, help="S3D's weights (%(default)s)")
    parser.add_argument(
        "--random-weights", action="store_true",
        help="try the pipeline: random S3D weights, and a YAML that starts from BERT, not from a checkpoint",
    )  # fmt: skip
    parser.add_argument("--shard-size", default=SHARD_SIZE, type=int, help="videos per shard (%(default)s)")
    parser.add_argument("--decoders", default=4, type=int, help="videos decoded at once (%(default)s)")
    parser.add_argument("--workers", default=1, type=int, help="shards at once (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
