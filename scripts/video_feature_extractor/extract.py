"""Extract S3D features: one float16 file [seconds, 512] per video; run it again after a break and it goes on.

    python scripts/video_feature_extractor/extract.py --vdir RAW --fdir data/feat/feat_how2_s3d --type s3d

RAW is a folder (and its sub-folders, one level), a list of paths (.txt, .lst), a CSV (`video_path`, optionally `id`
and `feature_path`), or several of them with commas between. `<fdir>/extract_summary.json` names the videos that could
not be read, with reasons, and those that were damaged. Several processes may fill one `--fdir`,
each with a `--shard` of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmpt.errors import DataError, LaunchError
from mmpt.media.frame_graph import FPS, SIZE
from mmpt.media.s3d import S3D, S3D_WEIGHTS, load_s3d
from mmpt.media.video_list import VideoJob, VideoList, find_videos, shard_of
from mmpt.prepare.features.clip_encoder import DTYPES, ClipEncoder
from mmpt.prepare.features.extraction import Extraction
from mmpt.prepare.features.feature_files import check_settings, extracting, locked
from mmpt.prepare.features.work import ExtractionReport
from mmpt.utils.command import run_command
from mmpt.utils.io import remove_leftovers, write_json
from mmpt.utils.log import get_logger

logger = get_logger("extract")

RANDOM_SEED = 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(lambda: _extract(_parser().parse_args(argv)), stopped="run the same command again to go on")


def _extract(args: argparse.Namespace) -> None:
    _check(args)
    videos = find_videos(_sources(args.vdir), args.fdir)
    network, weights = _network(args)
    with extracting(args.fdir, *args.shard):
        _run(args, videos, _jobs_of(args, videos), network, weights)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    add = parser.add_argument
    add("--vdir", required=True, help="folders, lists or CSV files of videos, comma-separated")
    add("--fdir", required=True, type=Path, help="folder to write features to")
    add("--type", default="s3d", help="the network; only s3d is there")
    add("--batch_size", "--batch-size", type=int, default=64, help="clips per batch on a GPU (%(default)s)")
    add(
        "--half_precision",
        "--half-precision",
        type=int,
        choices=(0, 1),
        default=1,
        help="files in float16 (%(default)s)",
    )
    add("--num_decoding_thread", "--num-decoding-thread", type=int, default=4, help="decoding threads (%(default)s)")
    add("--l2_normalize", "--l2-normalize", type=int, choices=(0, 1), default=1, help="rows of length 1 (%(default)s)")
    add("--hflip", type=int, choices=(0, 1), default=0, help="mirror the videos (%(default)s)")
    add("--shard", type=_shard, default=(0, 1), metavar="I/N", help="do part I (from 0) of N of the videos only")
    add("--limit", type=int, help="do the first so many videos only")
    add("--device", help="cpu, cuda or cuda:1 (the GPU if there is one)")
    add("--dtype", choices=tuple(DTYPES), default="fp32", help="what the network computes in (%(default)s)")
    add("--weights", type=Path, default=S3D_WEIGHTS, help="S3D's weights (%(default)s)")
    add("--dict", type=Path, help="the text tower's words (s3d_dict.npy); features do not need them")
    add("--random-weights", action="store_true", help="try the pipeline without the weights; features are useless")
    return parser


def _shard(text: str) -> tuple[int, int]:
    part, slash, number = text.partition("/")
    if not (slash and part.isdecimal() and number.isdecimal() and int(part) < int(number)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 0 to N - 1, such as 0/8, but is {text!r}")
    return int(part), int(number)


def _check(args: argparse.Namespace) -> None:
    """Raise LaunchError for values that no run can have."""
    if args.type != "s3d":
        raise LaunchError(f"`--type` must be s3d, but is {args.type!r}; MMPT trains on S3D features only.")
    for name in ("batch_size", "num_decoding_thread", "limit"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise LaunchError(f"`--{name}` must be at least 1, but is {value}.")
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(args.device)
    except RuntimeError:
        raise LaunchError(f"`--device` must be cpu, cuda or cuda:<number>, but is {args.device!r}.") from None
    if device.type not in ("cpu", "cuda"):
        raise LaunchError(f"`--device` must be cpu, cuda or cuda:<number>, but is {args.device!r}.")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise LaunchError(f"`--device {args.device}`: torch sees {count} GPUs here. Use cpu or another number.")


def _sources(vdir: str) -> list[str]:
    """Split at commas, unless the whole names something."""
    parts = [vdir] if Path(vdir).exists() else [part.strip() for part in vdir.split(",") if part.strip()]
    if not parts:
        raise DataError("`--vdir` is empty; name a folder, a list or a CSV file of videos.")
    return parts


def _jobs_of(args: argparse.Namespace, videos: VideoList) -> Sequence[VideoJob]:
    """Return this process's part, and say what was left out."""
    for video_id, replaced in videos.duplicates.items():
        logger.warning("id %s: %s is replaced by a later video of the same id", video_id, ", ".join(replaced))
    for video, reason in videos.misnamed.items():
        logger.warning("%r: %s; left out", video, reason)
    if videos.num_ignored:
        logger.info("%d files of the folders are no videos by their names and are left out", videos.num_ignored)
    jobs = shard_of(videos.jobs, *args.shard)[: args.limit]
    logger.info("%d of %d videos are this run's (part %d of %d)", len(jobs), len(videos.jobs), *args.shard)
    return jobs


def _network(args: argparse.Namespace) -> tuple[S3D, str]:
    """Return the network and what tells its weights from others."""
    if args.random_weights:
        logger.warning("random weights: these features are good for nothing but trying the pipeline")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            return S3D(args.dict).eval(), f"random, seed {RANDOM_SEED}"
    network = load_s3d(args.weights, args.dict)
    with open(args.weights, "rb") as file:
        return network, f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"


def _run(args: argparse.Namespace, videos: VideoList, jobs: Sequence[VideoJob], network: S3D, weights: str) -> None:
    """Extract, and write the summary (also of a run that is interrupted)."""
    made_with = {"type": args.type, "fps": FPS, "size": SIZE, "weights": weights, "dtype": args.dtype}
    made_with |= {name: getattr(args, name) for name in ("half_precision", "l2_normalize", "hflip")}
    check_settings(args.fdir, made_with)
    extraction = Extraction(
        jobs,
        ClipEncoder(network, torch.device(args.device), args.dtype, args.batch_size),
        num_threads=args.num_decoding_thread,
        hflip=bool(args.hflip),
        l2_normalize=bool(args.l2_normalize),
        dtype="float16" if args.half_precision else "float32",
    )
    try:
        report = extraction.run()
    except KeyboardInterrupt:
        _write_summary(args, videos, extraction.report, finished=False)
        raise
    path = _write_summary(args, videos, report, finished=True)
    logger.info(
        "%d videos written (%.2f hours), %d were there, %d failed; see %s",
        *(len(report.written), report.seconds / 3600, report.num_present, len(report.failed)),
        path,
    )
    if report.failed and len(report.failed) == len(jobs):
        reasons = "; ".join(f"{reason} ({count})" for reason, count in Counter(report.failed.values()).most_common(3))
        raise DataError(f"none of the {len(jobs)} videos could be read: {reasons}. Details: {path}")


def _write_summary(args: argparse.Namespace, videos: VideoList, report: ExtractionReport, *, finished: bool) -> Path:
    """Write `extract_summary.json` (of a part: `extract_summary_I_of_N.json`) and return its path."""
    part, num_parts = args.shard
    name = "extract_summary.json" if num_parts == 1 else f"extract_summary_{part}_of_{num_parts}.json"
    summary: dict[str, Any] = {
        "finished": finished,
        "videos": report.num_videos,
        "written": len(report.written),
        "present": report.num_present,
        "seconds_written": report.seconds,
        "failed": dict(sorted(report.failed.items())),
        "misnamed": videos.misnamed,
        "damaged": dict(sorted(report.notes.items())),
        "replaced_duplicates": videos.duplicates,
    }
    with locked(args.fdir):
        remove_leftovers(args.fdir, r"extract_\w+\.json")
        write_json(args.fdir / name, summary)
    return args.fdir / name


if __name__ == "__main__":
    sys.exit(main())
