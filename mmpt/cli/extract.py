"""`mmpt extract`: writes the features of videos, one float16 file [rows, width] per video."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmpt.cli.extract_options import Options, to_argv
from mmpt.cli.main import Command, choose_device
from mmpt.errors import DataError, LaunchError
from mmpt.media.clip_encoder import ClipEncoder, open_network
from mmpt.media.encoders import (
    NamedEncoder,
    S3DEncoder,
    open_encoder,
)
from mmpt.media.frame_graph import S3D_SAMPLING
from mmpt.media.s3d import S3D_WEIGHTS
from mmpt.media.video_list import VideoJob, VideoList, find_videos, shard_of
from mmpt.prepare.features.encoder_run import EncoderRun, ExtractionReport
from mmpt.prepare.features.extraction import Extraction
from mmpt.prepare.features.feature_files import check_settings, extracting, locked
from mmpt.shards.feature_info import (
    FeatureInfo,
    read_feature_info,
    write_feature_info,
)
from mmpt.utils.io import remove_leftovers, write_json
from mmpt.utils.log import get_logger

logger = get_logger("extract")


def extract(options: Options) -> None:
    """Extract the features of videos: one float16 file [rows, width] per video.

    `--vdir` is a folder (with its sub-folders, one level), a list of paths (.txt, .lst), a CSV
    file (`video_path`, optionally `id` and `feature_path`), or several of them separated by
    commas. Writes `<fdir>/<id>.npy` for every video. `<fdir>/extract_summary.json` lists the
    videos that could not be read, with reasons, and the damaged ones. Several processes may write
    to one `--fdir`, each with its own `--shard`. `<fdir>/features.json` has the encoder, the width
    and the rows per second. Run the command again after an interruption to continue.
    `--jobtype slurm --num-parts N` submits an array of N jobs, each with its `--shard`.

    With several `--encoder`, each video is decoded once. Each encoder then has a folder of its own
    in `--fdir`, with all the files above. The folder's name is the last part of the encoder's:
    `s3d`, or `clip-vit-large-patch14` for `hf:openai/clip-vit-large-patch14`.
    """
    if options.jobtype == "slurm":
        submit(options)
        return
    if options.slurm or options.dryrun or options.num_parts > 1:
        raise LaunchError(
            "slurm.key=value, --num-parts and --dryrun need --jobtype slurm."
        )
    videos = find_videos(_sources(options.vdir), options.fdir)
    _warn_of_left_out(videos)
    part = options.part
    jobs = shard_of(videos.jobs, *part)[: options.limit]
    logger.info(
        "extracting %d of %d videos (part %d of %d)", len(jobs), len(videos.jobs), *part
    )
    results = extract_jobs(options, videos, jobs)
    _report(results, len(jobs))


def _sources(vdir: str) -> list[str]:
    """Returns the folders and files that `--vdir` names. A name that exists may contain commas."""
    if Path(vdir).exists():
        return [vdir]
    sources = [name.strip() for name in vdir.split(",") if name.strip()]
    if not sources:
        raise DataError(
            "`--vdir` is empty; name a folder, a list or a CSV file of videos."
        )
    return sources


def _warn_of_left_out(videos: VideoList) -> None:
    """Warns of videos that are not extracted."""
    for video_id, replaced in videos.duplicates.items():
        logger.warning(
            "id %s: a later video replaces %s", video_id, ", ".join(replaced)
        )
    for video, reason in videos.misnamed.items():
        logger.warning("%r: %s; left out", video, reason)


def _report(results: list[tuple[ExtractionReport, Path]], num_videos: int) -> None:
    """Logs the result of every encoder.

    Raises:
        DataError: an encoder could not read any of the videos.
    """
    for report, path in results:
        logger.info(
            "%d videos written (%.2f hours), %d already existed, %d failed; see %s",
            *(
                len(report.written),
                report.seconds / 3600,
                report.num_present,
                len(report.failed),
                path,
            ),
        )
    for report, path in results:
        if not report.failed or len(report.failed) < num_videos:
            continue
        reasons = Counter(report.failed.values()).most_common(3)
        counted = "; ".join(f"{reason} ({count})" for reason, count in reasons)
        raise DataError(
            f"none of the {num_videos} videos could be read: {counted}. Details: {path}"
        )


def submit(options: Options) -> None:
    """Submits an array of SLURM jobs, each of which extracts a part of the videos.

    Raises:
        UserError: the section `slurm` is wrong, or SLURM refuses the jobs.
    """
    from mmpt.cli import slurm  # deferred: only clusters need submitit

    _ = options.folders  # raises if two encoders have the same folder
    _check_s3d_options(options)
    section = slurm.section_of(options.slurm or ())
    if section.nodes > 1:
        raise LaunchError(
            f"`slurm.nodes` must be 1 in extractions, but is {section.nodes}."
        )
    if options.shard != Options.shard:
        raise LaunchError("--shard is set by SLURM jobs themselves; give --num-parts.")
    parts = [f"{part}/{options.num_parts}" for part in range(options.num_parts)]
    slurm.submit(
        [
            slurm.NodeTask(("extract", *to_argv(replace(options, shard=part))))
            for part in parts
        ],
        section,
        "extract",
        options.fdir / "slurm",
        num_gpus=1 if section.gpus_per_node is None else section.gpus_per_node,
        num_cores=options.num_decoding_thread,
        dry_run=options.dryrun,
    )


def extract_jobs(
    options: Options,
    videos: VideoList,
    jobs: Sequence[VideoJob],
    *,
    folder_option: str = "--fdir",
) -> list[tuple[ExtractionReport, Path]]:
    """Extracts the features of `jobs`, a part of `videos`, and writes a summary per encoder.

    The summary is `extract_summary.json`, or `extract_summary_I_of_N.json` for one part of the
    videos. A lock in the folder of each encoder keeps other processes from extracting the same
    part.

    Args:
        jobs: the videos to extract. Their features are written to `options.fdir`. With several
            encoders, they are written to the same relative paths in the folder of each encoder.
        folder_option: the option of the command that names the folder, for messages.

    Returns:
        For each encoder the report on all jobs, and the path of the summary.
    Raises:
        UserError: the device or the weights do not exist, another process extracts this part, or
            a folder contains features that were extracted with other settings.
    """
    device = choose_device(options.device)
    folders = options.folders
    encoders = _open_encoders(options)
    runs = []
    for folder, named in zip(folders, encoders, strict=True):
        run = EncoderRun(
            _jobs_in(folder, options.fdir, jobs),
            ClipEncoder(
                named.encoder,
                device,
                options.dtype,
                options.batch_size,
                name=named.name,
            ),
            l2_normalize=bool(options.l2_normalize),
            dtype="float16" if options.half_precision else "float32",
        )
        runs.append(run)
    part, num_parts = options.part
    suffix = "" if num_parts == 1 else f"_{part}_of_{num_parts}"
    paths = [folder / f"extract_summary{suffix}.json" for folder in folders]
    extraction = Extraction(
        runs, num_threads=options.num_decoding_thread, hflip=bool(options.hflip)
    )
    with ExitStack() as locks:
        for folder, named, run in zip(folders, encoders, runs, strict=True):
            locks.enter_context(extracting(folder, part, num_parts))
            _describe(folder, options, named, run.encoder, folder_option)
        finished = False
        try:
            extraction.run()
            finished = True
        finally:  # also after an interrupt
            for folder, path, run in zip(folders, paths, runs, strict=True):
                summary = _summary(run.report, videos)
                with locked(folder):
                    remove_leftovers(folder, r"(extract_\w+|features)\.json")
                    write_json(path, {"finished": finished, **summary})
    return [(run.report, path) for run, path in zip(runs, paths, strict=True)]


def _jobs_in(folder: Path, fdir: Path, jobs: Sequence[VideoJob]) -> Sequence[VideoJob]:
    """Returns copies of the jobs that write to `folder` instead of `fdir`.

    The relative paths of the features stay the same.

    Raises:
        DataError: a job does not write to `fdir`.
    """
    if folder == fdir:
        return jobs
    moved = []
    for job in jobs:
        if not job.feature.is_relative_to(fdir):
            raise DataError(
                f"`feature_path` must be relative, or in {fdir}, with several `--encoder`, but is "
                f"{job.feature}."
            )
        feature = folder / job.feature.relative_to(fdir)
        moved.append(replace(job, feature=feature))
    return moved


def _describe(
    folder: Path,
    options: Options,
    named: NamedEncoder,
    encoder: ClipEncoder,
    folder_option: str,
) -> None:
    """Records the settings of the features in a folder, and writes `features.json`.

    Raises:
        DataError: the folder contains features that were extracted with other settings.
    """
    sampling = encoder.sampling
    name = _recorded_name(folder, named)
    settings: dict[str, Any] = {
        "type": name,
        "fps": float(sampling.frame_rate),
        "size": sampling.size,
        "weights": named.revision,
    }
    if sampling != S3D_SAMPLING:
        settings["frames"] = sampling.num_frames
    for option in ("dtype", "half_precision", "l2_normalize", "hflip"):
        settings[option] = getattr(options, option)
    check_settings(folder, settings, folder_option)
    info = FeatureInfo(
        encoder=name,
        revision=named.revision,
        width=encoder.width,
        fps=sampling.fps,
        normalised=bool(options.l2_normalize),
    )
    with locked(folder):
        write_feature_info(folder, info)


def _recorded_name(folder: Path, named: NamedEncoder) -> str:
    """Returns the name of an encoder for the records of a folder of features.

    A model in a folder may have several paths. If its weights have the recorded hash, the name is
    the recorded one.
    """
    info = read_feature_info(folder)
    if info is None or info.encoder is None or info.revision != named.revision:
        return named.name
    are_models = named.name.startswith("hf:") and info.encoder.startswith("hf:")
    is_hash = (named.revision or "").startswith("sha256 ")
    return info.encoder if are_models and is_hash else named.name


def _open_encoders(options: Options) -> list[NamedEncoder]:
    """Returns the encoders of the options.

    Raises:
        UserError: one does not exist or cannot be loaded, or another option does not fit them.
    """
    names = options.encoders
    _check_s3d_options(options)
    # --fps sets the rate of hf: and timm: encoders. The others have a rate of their own. If there
    # are only others, they get --fps, too, so that they can refuse it.
    with_fps = [name for name in names if name.startswith(("hf:", "timm:"))]
    opened = []
    for name in names:
        fps = options.fps if name in with_fps or not with_fps else None
        if name == "s3d":
            opened.append(_open_s3d(options, fps))
        else:
            opened.append(open_encoder(name, fps))
    return opened


def _check_s3d_options(options: Options) -> None:
    """Raises LaunchError if options of S3D are given without S3D, which would ignore them."""
    if "s3d" in options.encoders:
        return
    names = " and ".join(options.encoders)
    for option, value, default in (
        ("--random-weights", options.random_weights, False),
        ("--weights", options.weights, S3D_WEIGHTS),
        ("--dict", options.words, None),
    ):
        if value != default:
            raise LaunchError(
                f"{option} needs --encoder s3d, the only encoder that takes it, but the encoder is "
                f"{names}, which has weights of its own. Leave {option} out."
            )


def _open_s3d(options: Options, fps: float | None) -> NamedEncoder:
    """Returns S3D.

    Raises:
        UserError: its weights are missing, or `fps` is not its rate.
    """
    if fps not in (None, 1):
        raise LaunchError(f"--fps must be 1 with --encoder s3d, but is {fps:g}.")
    network, weights = open_network(
        options.weights, words=options.words, random_weights=options.random_weights
    )
    return NamedEncoder("s3d", weights, S3DEncoder(network))


def _summary(report: ExtractionReport, videos: VideoList) -> dict[str, Any]:
    """Returns the contents of the summary file."""
    return {
        "videos": report.num_videos,
        "written": len(report.written),
        "present": report.num_present,
        "seconds_written": report.seconds,
        "failed": dict(sorted(report.failed.items())),
        "misnamed": videos.misnamed,
        "damaged": dict(sorted(report.notes.items())),
        "replaced_duplicates": videos.duplicates,
    }


main = Command(
    extract, options=Options, interrupt_message="run the same command again to continue"
)
