"""`mmpt prepare`: makes shards and a training YAML from a folder of videos and their captions."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from mmpt.batch import FEATURE_DIM
from mmpt.cli import extract
from mmpt.cli.check import check
from mmpt.cli.extract_options import Options as ExtractOptions
from mmpt.cli.main import Command
from mmpt.cli.pack import pack
from mmpt.config import RunConfig, load_config
from mmpt.config.yaml_files import to_yaml
from mmpt.errors import DataError, LaunchError
from mmpt.media.s3d import S3D_WEIGHTS
from mmpt.media.video_list import VideoList, find_videos
from mmpt.models.bert import WEIGHT_FILES, read_bert_config
from mmpt.prepare import own_videos
from mmpt.prepare.captions.caption_list import CaptionList
from mmpt.prepare.captions.corpus import write_corpus
from mmpt.prepare.captions.language import parse_wanted
from mmpt.prepare.captions.pretokenise import tokenise_captions
from mmpt.prepare.own_captions import Report, gather_captions, new_report
from mmpt.shards.feature_info import FeatureInfo, read_feature_info
from mmpt.shards.writer import SHARD_SIZE
from mmpt.utils.io import atomic_write, remove_leftovers, write_json
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

MARK = "# Made by mmpt prepare"
"""First words of the YAMLs that this command writes. It refuses to overwrite any other file."""
VIDEO_LAYERS = 6
"""Layers of the video tower in the recipes."""
logger = get_logger("prepare")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command."""

    videos: Annotated[Path, Option(help="Folder of videos.")]
    captions: Annotated[Path, Option(help="Folder of captions, named like the videos.")]
    language: Annotated[
        list[str] | None,
        Option(
            help="Languages of captions to use, the preferred one first, such as en,de.",
            show_default="en",
        ),
    ] = None
    out: Annotated[Path, Option(help="Folder to write lists and shards to.")] = Path(
        "data/mine"
    )
    yaml: Annotated[Path, Option(help="The training YAML to write.")] = Path(
        "projects/retri/mine/pretrain.yaml"
    )
    recipe: Annotated[
        Literal["norton", "videoclip"],
        Option(help="The recipe that the YAML includes."),
    ] = "norton"
    bert_name: Annotated[
        str, Option(help="BERT to train from: a name on the hub, or a folder.")
    ] = "bert-base-uncased"
    val_share: Annotated[
        float, Option(min=0, max=1, help="Share of the videos to validate on.")
    ] = 0.05
    encoder: Annotated[
        list[str] | None,  # a list, so that a repeated option is noticed
        Option(
            metavar="NAME",
            show_default="s3d",
            help="The network of the features, as for `mmpt extract`, but only one.",
        ),
    ] = None
    fps: Annotated[
        float | None,
        Option(min=0.001, max=1000, help="Feature rows per second. Default: 1."),
    ] = None
    weights: Annotated[Path, Option(help="File of the S3D weights.")] = S3D_WEIGHTS
    random_weights: Annotated[
        bool,
        Option(
            "--random-weights",
            help="Try the pipeline: random S3D weights, and a YAML that starts from BERT.",
        ),
    ] = False
    shard_size: Annotated[int, Option(min=1, help="Number of videos per shard.")] = (
        SHARD_SIZE
    )
    decoders: Annotated[
        int, Option(min=1, help="Number of videos to decode at the same time.")
    ] = 4
    workers: Annotated[
        int, Option(min=1, help="Number of shards to write at the same time.")
    ] = 1

    @property
    def features(self) -> Path:
        """Folder of the feature files."""
        return self.out / "feat"

    @property
    def shards(self) -> Path:
        """Folder of the shards of features and captions."""
        return self.out / "shards"

    @property
    def train_list(self) -> Path:
        """List of the training videos."""
        return self.out / "train.lst"

    @property
    def val_list(self) -> Path:
        """List of the validation videos."""
        return self.out / "val.lst"

    @property
    def corpus(self) -> Path:
        """All captions as JSON Lines."""
        return self.out / "captions.jsonl"


def prepare(options: Options) -> None:
    """Make shards and a training YAML from a folder of videos and their captions.

    Extracts features, splits the videos into training and validation, packs features and
    captions into shards, writes a YAML, and checks the result. Caption files (.vtt, .srt, or the
    .json of WhisperX or of MMPT) have the name of their video and optionally a language:
    `tea.mp4`, `tea.en.vtt`. `<out>/report.json` lists the captions in use, and the videos and
    captions that could not be used, with reasons. Run the command again after an interruption to
    continue.
    """
    wanted = parse_wanted(options.language or ["en"])
    recipe = load_config(f"projects/retri/{options.recipe}/how2_pretrain.yaml")
    _check_options(options)
    videos = find_videos([str(options.videos)], options.features)
    with exclusive(options.out / ".prepare.lock", "preparing these videos"):
        remove_leftovers(
            options.out, {"report.json", "captions.jsonl", "train.lst", "val.lst"}
        )
        remove_leftovers(options.yaml.parent, {options.yaml.name})
        captions, ids = _gather(options, videos, wanted)
        videos_per_batch = own_videos.choose_batch_size(len(ids), options.recipe)
        train, val = own_videos.split_ids(ids, options.val_share, videos_per_batch)
        tfeat_dir = _write_shards(options, captions, train, val)
        settings = own_videos.fitting_settings(
            num_train=len(train),
            batch=videos_per_batch,
            recipe=options.recipe,
            max_epoch=recipe.option("optimization", "max_epoch", 0),
        )
        head = f"{MARK}: {len(train)} training and {len(val)} validation videos."
        _write_yaml(options, head, recipe, tfeat_dir, settings)
        _check_result(options)
    config = load_config(options.yaml)
    start = config.option("checkpoint", "restore_file")
    if start is not None and not Path(start).exists():
        print(
            f"\nThe recipe starts from {start}, which is not there. Get it with "
            "`mmpt download videoclip`, or start from BERT with `--recipe videoclip`."
        )
    print(f"\nTo train:\n  mmpt train {options.yaml} --jobtype local_single")


def _check_options(options: Options) -> None:
    """Raises an error for options that the command would otherwise reject only hours later."""
    if options.encoder and len(options.encoder) > 1:
        raise LaunchError(
            f"`--encoder` must be given once, but is given {len(options.encoder)} times. Run the "
            "command for each encoder, with an `--out` and a `--yaml` of its own."
        )
    if not options.captions.is_dir():
        raise DataError(
            f"{options.captions}: no such folder. Name where the captions are with `--captions`."
        )
    if not options.yaml.exists():
        return
    text = options.yaml.read_text("utf-8-sig", "replace")
    if not text.startswith(MARK):
        raise DataError(
            f"{options.yaml}: exists, and was not made by this command. Give another file with "
            "`--yaml`."
        )


def _gather(
    options: Options, videos: VideoList, wanted: Sequence[str]
) -> tuple[dict[str, CaptionList], list[str]]:
    """Reads the captions, extracts the features of the videos with captions, and reports both.

    Args:
        wanted: language tags, in order of preference.

    Returns:
        The captions by video id, and the ids of the videos that have captions and features.
    """
    report = new_report()
    report["videos_misnamed"] = videos.misnamed
    try:
        ids = [job.video_id for job in videos.jobs]
        captions = gather_captions(options.captions, ids, wanted, report)
        extract_videos(options, videos, captions, report)
    finally:  # the report is also useful after an error or an interrupt
        path = options.out / "report.json"
        write_json(path, report)
        for name, entries in report.items():
            if entries and name != "captions_used":
                logger.warning(
                    "%d %s; see %s", len(entries), name.replace("_", " "), path
                )
    without_features = report["videos_without_features"]
    return captions, [
        video_id for video_id in captions if video_id not in without_features
    ]


def _write_shards(
    options: Options, captions: dict[str, CaptionList], train: list[str], val: list[str]
) -> str:
    """Writes the lists and the shards of both splits. Returns `dataset.tfeat_dir`."""
    for path, listed in ((options.train_list, train), (options.val_list, val)):
        with atomic_write(path) as file:
            file.writelines(f"{video_id}\n" for video_id in listed)
    pack(
        features=options.features,
        target=options.shards,
        train_list=options.train_list,
        val_list=options.val_list,
        shard_size=options.shard_size,
        workers=options.workers,
    )
    write_corpus(options.corpus, captions.items())
    return tokenise_captions(
        options.corpus, options.shards, options.bert_name, workers=options.workers
    )


def _write_yaml(
    options: Options,
    head: str,
    recipe: RunConfig,
    tfeat_dir: str,
    settings: dict[str, Any],
) -> None:
    """Writes the training YAML.

    Args:
        head: first line of the file.
        recipe: the config that the YAML includes.
        tfeat_dir: prefix of the text shards.
        settings: the settings of `own_videos.fitting_settings`.
    """
    dataset = {
        "bert_name": options.bert_name,
        "train_path": str(options.train_list),
        "val_path": str(options.val_list),
        "vfeat_dir": str(options.shards),
        "tfeat_dir": tfeat_dir,
    }
    save_dir = f"runs/{options.out.name}/{options.recipe}"
    checkpoint: dict[str, Any] = {"save_dir": save_dir}
    if options.random_weights:
        checkpoint["restore_file"] = None
    values: dict[str, Any] = {
        "includes": recipe.path,
        "dataset": dataset | settings["dataset"],
        "fairseq": {
            "common": settings["common"],
            "optimization": settings["optimization"],
            "checkpoint": checkpoint,
        },
        "task_type": "local_single",
        "eval": {"save_path": save_dir},
        **settings["retrieval"],
    }
    model_keys = _model_keys(options.bert_name)
    info = read_feature_info(options.shards)
    if info is None:
        info = FeatureInfo(width=FEATURE_DIM)  # S3D features of an older version
    if info.fps != 1:
        values["dataset"]["feature_fps"] = info.fps
    if info.width != FEATURE_DIM:
        model_keys["input_dim"] = info.width
    if info.width != FEATURE_DIM or info.encoder not in (None, "s3d"):
        # The checkpoint's first layer takes S3D features, so it must be trained.
        model_keys["layernorm_only"] = False
        # All parameters need the learning rate of VideoCLIP, as in how2_pretrain_clip.yaml.
        values["fairseq"]["optimization"]["lr"] = [5e-5]
    if model_keys:
        values["model"] = model_keys
    header = f"""\
{head}
# Running it again overwrites this file. Put changes into a YAML that `includes` it.
#
# Run:   mmpt train {options.yaml} --jobtype local_single
# Makes: {save_dir}/checkpoint_best.pt

"""
    with atomic_write(options.yaml) as file:
        file.write(header + to_yaml(values))


def _check_result(options: Options) -> None:
    """Checks the data of the new YAML.

    Raises:
        DataError: the data are damaged or implausible.
    """
    try:
        check(str(options.yaml), out=options.out / "check", workers=options.workers)
    except DataError as err:
        raise DataError(
            f"{err}\nEverything is written, also {options.yaml}. Correct the captions, or delete "
            f"wrong features from {options.features}, and run the same command again: it "
            "continues, and makes only what is missing or changed."
        ) from err


def extract_videos(
    options: Options, videos: VideoList, ids: Collection[str], report: Report
) -> None:
    """Extracts the missing features of the videos in `ids`, and reports the unreadable videos."""
    jobs = [job for job in videos.jobs if job.video_id in ids]
    if not jobs:
        return
    settings = ExtractOptions(
        vdir=str(options.videos),
        fdir=options.features,
        encoder=options.encoder,
        fps=options.fps,
        weights=options.weights,
        random_weights=options.random_weights,
        num_decoding_thread=options.decoders,
    )
    ((found, _),) = extract.extract_jobs(settings, videos, jobs, folder_option="--out")
    report["videos_without_features"] = found.failed
    report["videos_damaged"] = found.notes


def _model_keys(bert_name: str) -> dict[str, Any]:
    """Returns the keys of `model` that a BERT with few layers or without weights needs."""
    folder = Path(bert_name)
    if not folder.is_dir():
        return {}
    keys: dict[str, Any] = {}
    num_layers = read_bert_config(bert_name).num_hidden_layers
    if num_layers < VIDEO_LAYERS:
        keys["num_hidden_video_layers"] = num_layers
    has_weights = any((folder / name).is_file() for name in WEIGHT_FILES)
    if not has_weights:
        logger.warning("%s holds no weights: the YAML says `random_init: true`", folder)
        keys["random_init"] = True
    return keys


main = Command(
    prepare, options=Options, stopped="run the same command again to continue"
)
