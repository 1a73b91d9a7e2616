"""Makes shards and a training YAML from a folder of videos and their captions."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from typer import Option

from mmpt.cli import extract
from mmpt.cli.app import Command
from mmpt.cli.check import check
from mmpt.cli.pack import pack
from mmpt.config import load_config
from mmpt.errors import DataError
from mmpt.media.s3d import S3D_WEIGHTS
from mmpt.media.video_list import VideoList, find_videos
from mmpt.models.bert_weights import WEIGHT_FILES, read_bert_config
from mmpt.prepare import own_videos
from mmpt.prepare.captions.caption_list import CaptionList
from mmpt.prepare.captions.corpus import write_corpus
from mmpt.prepare.captions.language import Language, parse_wanted
from mmpt.prepare.captions.pretokenise import tokenise_captions
from mmpt.prepare.captions.reader import CAPTION_SUFFIXES, read_captions, read_language
from mmpt.shards.writer import SHARD_SIZE
from mmpt.utils.io import atomic_write, remove_leftovers, write_json
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger, progress

MARK = "# Made by mmpt prepare"
"""Beginning of the YAMLs that this command may overwrite."""
logger = get_logger("prepare")

Report = dict[str, Any]
"""What could not be used, and why: a kind of it -> the reasons by id or path, or a list. Also the
caption files in use, by id.
"""
MAX_NAMED = 10
"""Unused caption files that the log names."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command."""

    videos: Annotated[Path, Option(help="Folder of videos.")]
    captions: Annotated[Path, Option(help="Folder of captions, named like the videos.")]
    language: Annotated[
        list[str] | None,
        Option(help="Caption languages to use, the preferred one first: en,de.", show_default="en"),
    ] = None
    out: Annotated[Path, Option(help="Folder of the lists and shards.")] = Path("data/mine")
    yaml: Annotated[Path, Option(help="The training YAML to write.")] = Path(
        "projects/retri/mine/pretrain.yaml"
    )
    recipe: Annotated[Literal["norton", "videoclip"], Option(help="What to train.")] = "norton"
    bert_name: Annotated[str, Option(help="Name on the hub, or a folder.")] = "bert-base-uncased"
    val_share: Annotated[float, Option(min=0, max=1, help="Share of validation videos.")] = 0.05
    weights: Annotated[Path, Option(help="S3D's weights.")] = S3D_WEIGHTS
    random_weights: Annotated[
        bool,
        Option(
            "--random-weights",
            help="Try the pipeline: random S3D weights, and a YAML that starts from BERT.",
        ),
    ] = False
    shard_size: Annotated[int, Option(min=1, help="Videos per shard.")] = SHARD_SIZE
    decoders: Annotated[int, Option(min=1, help="Videos decoded at once.")] = 4
    workers: Annotated[int, Option(min=1, help="Shards at once.")] = 1


def prepare(options: Options) -> None:
    """Make shards and a training YAML from a folder of videos and their captions.

    Run it again after a break and it continues. Captions (.vtt, .srt, WhisperX's or our .json) are
    named like their videos, perhaps with a language: `tea.mp4`, `tea.en.vtt`. The captions that
    are used, and what could not be used and why, are listed in `<out>/report.json`.
    """
    wanted = parse_wanted(options.language or ["en"])
    recipe = load_config(f"projects/retri/{options.recipe}/how2_pretrain.yaml")
    _check(options)
    out, features, shards = options.out, options.out / "feat", options.out / "shards"
    train_list, val_list = out / "train.lst", out / "val.lst"
    videos = find_videos([str(options.videos)], features)
    with exclusive(out / ".prepare.lock", "preparing these videos"):
        remove_leftovers(out, {"report.json", "captions.jsonl", "train.lst", "val.lst"})
        remove_leftovers(options.yaml.parent, {options.yaml.name})
        report: Report = {
            "videos_without_captions": {},
            "videos_without_features": {},
            "videos_misnamed": videos.misnamed,
            "videos_damaged": {},
            "captions_without_video": [],
            "captions_repaired": {},
            "captions_unused": {},
            "captions_used": {},
        }
        try:
            captions = _gather_captions(options.captions, videos, wanted, report)
            extract_videos(options, videos, captions, report)
        finally:
            path = out / "report.json"
            write_json(path, report)
            for name, entries in report.items():
                if entries and name != "captions_used":
                    logger.warning("%d %s; see %s", len(entries), name.replace("_", " "), path)
        without = report["videos_without_features"]
        ids = [video_id for video_id in captions if video_id not in without]
        batch = own_videos.choose_batch_size(len(ids), options.recipe)
        train, val = own_videos.split_ids(ids, options.val_share, batch)
        for path, listed in ((train_list, train), (val_list, val)):
            with atomic_write(path) as file:
                file.writelines(f"{video_id}\n" for video_id in listed)
        pack(
            features=features,
            target=shards,
            train_list=train_list,
            val_list=val_list,
            shard_size=options.shard_size,
            workers=options.workers,
        )
        corpus = out / "captions.jsonl"
        write_corpus(corpus, captions.items())
        tfeat_dir = tokenise_captions(corpus, shards, options.bert_name, workers=options.workers)
        dataset = {
            "bert_name": options.bert_name,
            "train_path": str(train_list),
            "val_path": str(val_list),
            "vfeat_dir": str(shards),
            "tfeat_dir": tfeat_dir,
        }
        max_epoch = recipe.option("optimization", "max_epoch", 0)
        settings = own_videos.fitting_settings(len(train), batch, options.recipe, max_epoch)
        head = f"{MARK}: {len(train)} training and {len(val)} validation videos."
        _write_yaml(options, head, recipe.path, dataset, settings)
        try:
            check(str(options.yaml), out=out / "check", workers=options.workers)
        except DataError as err:
            raise DataError(
                f"{err}\nEverything is written, also {options.yaml}. Correct the captions, or "
                f"delete wrong features from {features}, and run the same command again: it "
                "continues, and makes only what is missing or changed."
            ) from err
    start = load_config(options.yaml).option("checkpoint", "restore_file")
    if start is not None and not Path(start).exists():
        print(f"\nThe recipe starts from {start}, which is not there: mmpt download videoclip")
    print(f"\nTo train:\n  mmpt train {options.yaml} --jobtype local_single")


def _write_yaml(
    options: Options, head: str, base: str, dataset: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Writes the training YAML.

    Args:
        head: its first line.
        base: the recipe that it includes.
        dataset: its keys of `dataset` that name files, and `bert_name`.
        settings: those of `own_videos.fitting_settings`.
    """
    checkpoint = {"save_dir": f"runs/{options.out.name}/{options.recipe}"}
    values = {
        "includes": base,
        "dataset": dataset | settings["dataset"],
        "fairseq": {
            "common": settings["common"],
            "optimization": settings["optimization"],
            "checkpoint": checkpoint | ({"restore_file": None} if options.random_weights else {}),
        },
        "task_type": "local_single",
        "eval": {"save_path": checkpoint["save_dir"]},
        **settings["retrieval"],
    }
    if model := _model_keys(options.bert_name):
        values["model"] = model
    with atomic_write(options.yaml) as file:
        file.write(
            f"{head}\n# Running it again overwrites this file. Put changes into a YAML that "
            f"`includes` it.\n#\n# Run:   mmpt train {options.yaml} --jobtype local_single\n"
            f"# Makes: {checkpoint['save_dir']}/checkpoint_best.pt\n\n"
        )
        yaml.safe_dump(values, file, sort_keys=False, allow_unicode=True)


def _check(options: Options) -> None:
    """Refuses what would fail late."""
    if not options.captions.is_dir():
        raise DataError(
            f"{options.captions}: no such folder. Name where the captions are with `--captions`."
        )
    text = options.yaml.read_text("utf-8-sig", "replace") if options.yaml.exists() else MARK
    if not text.startswith(MARK):
        raise DataError(
            f"{options.yaml}: exists, and was not made by this command. Give another file with "
            "`--yaml`."
        )


def _gather_captions(
    folder: Path, videos: VideoList, wanted: Sequence[str], report: Report
) -> dict[str, CaptionList]:
    """Reads the captions of every video that has some in a wanted language, from a folder and its
    sub-folders, one level.
    """
    used = _choose_captions(folder, [job.video_id for job in videos.jobs], wanted, report)
    captions = {}
    languages: Counter[str] = Counter()
    for video_id, file in progress(used.items(), len(used), "caption files read", logger):
        path, language = file
        try:
            found, notes = read_captions(path)
        except DataError as err:
            report["videos_without_captions"][video_id] = str(err)
            continue
        if notes:
            report["captions_repaired"][video_id] = f"{path}: {'; '.join(notes)}"
            logger.warning("%s", report["captions_repaired"][video_id])
        if found["start"]:
            captions[video_id] = found
            report["captions_used"][video_id] = str(path)
            languages[str(language)] += 1
        else:
            report["videos_without_captions"][video_id] = f"{path}: no caption with text"
    logger.info("caption files used: %s", _counts(languages) or "none")
    return captions


def _choose_captions(
    folder: Path, ids: Sequence[str], wanted: Sequence[str], report: Report
) -> dict[str, tuple[Path, Language]]:
    """Returns the caption file to use and its language, by video id. Reports the other files."""
    entries = sorted(folder.iterdir())
    entries += [path for sub in entries if sub.is_dir() for path in sorted(sub.iterdir())]
    files = [
        path
        for path in entries
        if path.suffix.lower() in CAPTION_SUFFIXES and path.is_file() and path.name[0] != "."
    ]
    found = own_videos.find_captions(ids, files, read_language)
    report["captions_without_video"] = [str(path) for path in found.pop(None, {})]
    unused = report["captions_unused"]
    chosen = {}
    languages: Counter[str] = Counter()  # of videos with captions in other languages only
    names = " or ".join(wanted)
    for video_id in ids:
        candidates = found.get(video_id, {})
        used = own_videos.choose_captions(candidates, wanted)
        if used:
            chosen[video_id] = used, candidates.pop(used)
            reason = f"{used.name} is preferred"
        else:
            others = sorted({language.tag for language in candidates.values()})
            languages.update(others)
            reason = f"not in {names}"
            there = f" in {names}, but in {', '.join(others)}" if others else ""
            report["videos_without_captions"][video_id] = f"no caption file{there}"
        unused |= dict.fromkeys(map(str, candidates), reason)
    if unused:
        more = ", ..." if len(unused) > MAX_NAMED else ""
        logger.info("caption files not used: %s%s", ", ".join(list(unused)[:MAX_NAMED]), more)
    if languages:
        logger.warning(
            "videos with captions in other languages only: %s. Name the languages to use with "
            "`--language`.",
            _counts(languages),
        )
    return chosen


def _counts(languages: Counter[str]) -> str:
    return ", ".join(f"{count} {language}" for language, count in languages.most_common())


def extract_videos(
    options: Options, videos: VideoList, ids: Collection[str], report: Report
) -> None:
    """Makes `<out>/feat/<id>.npy` of those of `ids` that have none; reports broken videos."""
    if jobs := [job for job in videos.jobs if job.video_id in ids]:
        settings = extract.Options(
            vdir=str(options.videos),
            fdir=options.out / "feat",
            weights=options.weights,
            random_weights=options.random_weights,
            num_decoding_thread=options.decoders,
        )
        found, _ = extract.extract_jobs(settings, videos, jobs)
        report["videos_without_features"], report["videos_damaged"] = found.failed, found.notes


def _model_keys(bert_name: str) -> dict[str, Any]:
    """Returns what a small BERT, or one without weights, asks of `model`."""
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


main = Command(prepare, options=Options, stopped="run the same command again to continue")
