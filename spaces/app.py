"""A Hugging Face Space with the page of `mmpt app`. README.md names the settings."""

import os
import sys
from pathlib import Path
from tempfile import gettempdir

from huggingface_hub import snapshot_download

from mmpt.app.video_files import VideoFiles
from mmpt.cli import app, download, index
from mmpt.cli.embed import find_files
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.media.s3d import S3D_WEIGHTS
from mmpt.media.video_list import VIDEO_SUFFIXES, files_in
from mmpt.utils.command import run_command
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

HERE = Path(__file__).resolve().parent


def fetch(source: str) -> Path:
    """Returns a local folder, or downloads a dataset of the hub and returns its folder."""
    if Path(source).is_dir():
        return Path(source)
    return Path(snapshot_download(source, repo_type="dataset"))


def make_index(model: str, encoder: str | None, data: Path) -> Path:
    """Returns `data` if it has an index, else the folder of a new index of its features or videos.

    If an earlier start was interrupted while it made the index, this one continues it.

    Args:
        encoder: the encoder of the videos. None: that of the training.
    """
    if (data / "index.json").is_file():
        return data
    has_features = any(files_in(data, [".npy"]))
    if has_features:
        report_missing_features(data)
    if not has_features and not Path(S3D_WEIGHTS).is_file():
        loaded = MMPTModel.from_pretrained(model, encoder=encoder)
        if loaded.features.frames.uses_s3d:
            run(download.main, "s3d")
    kind = "--features" if has_features else "--videos"
    folder = Path(gettempdir()) / "mmpt_index"
    options = ["--model", model, kind, data, *encoder_options(encoder)]
    run(index.main, folder, *options, "--skip-broken")
    return folder


def report_missing_features(data: Path) -> None:
    """Logs how many videos have no features. They are left out of an index of features."""
    names = find_files(data, [".npy"])
    files = VideoFiles(names, [data])
    indexed = {files.video(name) for name in names}
    videos = list(files_in(data, VIDEO_SUFFIXES))
    missing = sorted(path for path in videos if path not in indexed)
    if missing:
        logger.warning(
            "%d of %d videos are left out, because they have no features (.npy), such as %s",
            len(missing),
            len(videos),
            missing[0].relative_to(data),
        )


def encoder_options(encoder: str | None) -> list[str]:
    """Returns the options of a command that name an encoder, if it is given."""
    return [] if encoder is None else ["--encoder", encoder]


def run(command, *arguments) -> None:
    """Runs a command of `mmpt`, and exits if it fails."""
    if code := command([str(argument) for argument in arguments]):
        sys.exit(code)


def main() -> None:
    """Makes the index and serves the page."""
    model = os.environ.get("MMPT_MODEL")
    if not model:
        sys.exit("error: set the variable MMPT_MODEL of the Space; see README.md.")
    encoder = os.environ.get("MMPT_ENCODER") or None
    data = fetch(os.environ.get("MMPT_DATASET") or str(HERE / "videos"))
    folder = make_index(model, encoder, data)
    options = ["--model", model, "--videos", data, *encoder_options(encoder)]
    # A Space forwards this port.
    run(app.main, folder, *options, "--host", "0.0.0.0", "--port", 7860)


if __name__ == "__main__":
    sys.exit(run_command(main, interrupt_message="the page is closed"))
