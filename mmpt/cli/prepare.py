"""`mmpt prepare`: makes shards and a training YAML from videos or features and their captions."""

from collections.abc import Collection, Sequence
from pathlib import Path

from mmpt.batch import Split
from mmpt.cli.main import Command, require_projects
from mmpt.cli.prepare_options import Options
from mmpt.config import RunConfig, load_config
from mmpt.errors import DataError
from mmpt.media.video_list import VideoList, find_videos
from mmpt.prepare.captions.caption_list import CaptionList
from mmpt.prepare.captions.corpus import write_corpus
from mmpt.prepare.captions.language import parse_wanted
from mmpt.prepare.captions.pretokenise import tokenise_captions
from mmpt.prepare.shards.packing import pack_features
from mmpt.prepare.user_data.captions import Report, gather_captions, new_report
from mmpt.prepare.user_data.features import (
    find_ids,
    report_unusable,
    warn_of_unknown_encoder,
)
from mmpt.prepare.user_data.training_yaml import (
    check_replaceable,
    training_values,
    write_training,
)
from mmpt.prepare.user_data.videos import (
    choose_batch_size,
    fitting_settings,
    split_ids,
)
from mmpt.shards.feature_info import read_feature_info
from mmpt.utils.io import atomic_write, remove_leftovers, write_json
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

logger = get_logger("prepare")


def prepare(options: Options) -> None:
    """Make shards and a training YAML from videos or features and their captions.

    Extracts features from `--videos`, or reads the features of `--features`. Splits the videos
    into training and validation, packs features and captions into shards, writes a YAML, and
    checks the result. Caption files (.vtt, .srt, or the .json of WhisperX or of MMPT) have the
    name of their video or its features, and optionally a language: `tea.mp4`, `tea.en.vtt`.
    `<out>/report.json` lists the captions in use, and the videos and captions that could not be
    used, with reasons. Run the command again after an interruption to continue.
    """
    options.check()
    recipe_path = f"projects/retri/{options.recipe}/how2_pretrain.yaml"
    require_projects("mmpt prepare", recipe_path)
    if options.videos is not None:
        import av  # noqa: F401  # reports a missing package before any work is done
    check_replaceable(options.yaml)
    wanted = parse_wanted(options.language or ["en"])
    recipe = load_config(recipe_path)
    report = new_report()
    videos = None
    if options.features is not None:
        ids = find_ids(options.source, options.captions, report)
    else:
        videos = find_videos([str(options.videos)], options.extracted)
        ids = [job.video_id for job in videos.jobs]
        report["videos_misnamed"] = videos.misnamed
    with exclusive(options.out / ".prepare.lock", "preparing these videos"):
        remove_leftovers(
            options.out, {"report.json", "captions.jsonl", "train.lst", "val.lst"}
        )
        remove_leftovers(options.yaml.parent, {options.yaml.name})
        captions = _gather(options, videos, ids, wanted, report)
        batch = choose_batch_size(len(captions), options.recipe)
        train, val = split_ids(list(captions), options.val_share, batch)
        tfeat_dir = _write_shards(options, captions, train, val)
        _write_yaml(options, recipe, (len(train), len(val)), batch, tfeat_dir)
        _check_result(options)
    _print_next(options)


def _gather(
    options: Options,
    videos: VideoList | None,
    ids: list[str],
    wanted: Sequence[str],
    report: Report,
) -> dict[str, CaptionList]:
    """Returns the captions of the videos that have captions and features, and writes the report.

    Args:
        videos: the videos, whose features are extracted if they have captions. None: there are
            features only.
        ids: ids of all videos, or of all features.
        wanted: language tags, in order of preference.
        report: gets the videos and captions that cannot be used, with reasons.
    """
    try:
        captions = gather_captions(options.captions, ids, wanted, report)
        if videos is not None:
            extract_videos(options, videos, captions, report)
        else:
            report_unusable(
                options.source, ids, captions, options.shards, report, options.workers
            )
    finally:  # the report is also useful after an error or an interrupt
        path = options.out / "report.json"
        write_json(path, report)
        for name, entries in report.items():
            if entries and name != "captions_used":
                logger.warning(
                    "%d %s; see %s", len(entries), name.replace("_", " "), path
                )
    for video_id in report["videos_without_features"]:
        captions.pop(video_id, None)
    return captions


def _write_shards(
    options: Options, captions: dict[str, CaptionList], train: list[str], val: list[str]
) -> str:
    """Writes the lists and the shards of both splits. Returns `dataset.tfeat_dir`."""
    for path, listed in ((options.train_list, train), (options.val_list, val)):
        with atomic_write(path) as file:
            file.writelines(f"{video_id}\n" for video_id in listed)
    for split, listed in ((Split.TRAIN, train), (Split.VALID, val)):
        pack_features(
            options.source,
            options.shards,
            split,
            listed,
            shard_size=options.shard_size,
            workers=options.workers,
        )
    write_corpus(options.corpus, captions.items())
    return tokenise_captions(
        options.corpus, options.shards, options.bert_name, workers=options.workers
    )


def _write_yaml(
    options: Options,
    recipe: RunConfig,
    num_videos: tuple[int, int],
    batch: int,
    tfeat_dir: str,
) -> None:
    """Writes the training YAML.

    Args:
        recipe: the config that the YAML includes.
        num_videos: number of training videos and of validation videos.
        batch: V, videos per batch.
        tfeat_dir: prefix of the text shards.
    """
    num_train, num_val = num_videos
    dataset = {
        "bert_name": options.bert_name,
        "train_path": str(options.train_list),
        "val_path": str(options.val_list),
        "vfeat_dir": str(options.shards),
        "tfeat_dir": tfeat_dir,
    }
    settings = fitting_settings(
        num_train=num_train,
        batch=batch,
        recipe=options.recipe,
        max_epoch=recipe.option("optimization", "max_epoch", 0),
    )
    info = read_feature_info(options.shards)
    assert info is not None, "packing writes it"
    if options.features is not None:
        warn_of_unknown_encoder(info)
    values = training_values(
        recipe,
        dataset,
        settings,
        info,
        save_dir=f"runs/{options.out.name}/{options.recipe}",
        from_bert=options.random_weights,
    )
    content = f"{num_train} training and {num_val} validation videos"
    write_training(options.yaml, content, values)


def _check_result(options: Options) -> None:
    """Checks the data of the new YAML.

    Raises:
        DataError: the data are damaged or implausible.
    """
    # Deferred, like the imports below, so that --help and argument errors do not wait for it.
    from mmpt.cli.check import check

    folder = options.out / "check"
    remove_leftovers(folder, {"statistics.json", "histograms.png"})
    try:
        check(str(options.yaml), out=folder, workers=options.workers)
    except DataError as err:
        change = "delete" if options.features is None else "correct"
        raise DataError(
            f"{err}\nAll files were written, including {options.yaml}. Correct the captions, or "
            f"{change} wrong features in {options.source.path}, and run the same command again. "
            "Only missing or changed files are made again."
        ) from err


def _print_next(options: Options) -> None:
    """Prints how to train."""
    config = load_config(options.yaml)
    start = config.option("checkpoint", "restore_file")
    if start is not None and not Path(start).exists():
        print(
            f"\nThe recipe starts from {start}, which is not there. Get it with "
            "`mmpt download videoclip`, or start from BERT with `--recipe videoclip`."
        )
    print(f"\nTo train:\n  mmpt train {options.yaml} --jobtype local_single")


def extract_videos(
    options: Options, videos: VideoList, ids: Collection[str], report: Report
) -> None:
    """Extracts the missing features of the videos in `ids`, and reports the unreadable videos."""
    jobs = [job for job in videos.jobs if job.video_id in ids]
    if not jobs:
        return
    from mmpt.cli import extract
    from mmpt.cli.extract_options import Options as ExtractOptions
    from mmpt.media.s3d import S3D_WEIGHTS

    settings = ExtractOptions(
        vdir=str(options.videos),
        fdir=options.extracted,
        encoder=options.encoder,
        fps=options.fps,
        weights=options.weights or S3D_WEIGHTS,
        random_weights=options.random_weights,
        num_decoding_thread=options.decoders,
    )
    ((found, _),) = extract.extract_jobs(settings, videos, jobs, folder_option="--out")
    report["videos_without_features"] = found.failed
    report["videos_damaged"] = found.notes


main = Command(
    prepare, options=Options, interrupt_message="run the same command again to continue"
)
