"""Embeds a folder of videos or features, or a text file."""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from typer import Option

from mmpt.cli.app import Command, Device, choose_device
from mmpt.errors import DataError, LaunchError
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.inference.texts import batches
from mmpt.media.s3d import S3D_WEIGHTS
from mmpt.media.video_list import VIDEO_SUFFIXES
from mmpt.models.checkpoint import weights_fingerprint
from mmpt.utils.io import atomic_write, read_lines
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)


def find_files(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """Returns files of these kinds by id, sorted: the path in `folder` without its extension.

    Raises:
        DataError: no such folder, nothing in it, or two files of one id.
    """
    files: dict[str, Path] = {}
    for path in folder.rglob("*"):
        if path.suffix.lower() in suffixes and path.is_file():
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in files:
                raise DataError(f"{path}: has the same id as {files[name]}; rename one of them.")
            files[name] = path
    if not files:
        kinds = " ".join(sorted(suffixes))
        raise DataError(f"{folder}: must be a folder with files of the kinds {kinds}, but is not.")
    return dict(sorted(files.items()))


def embed_files(
    model: MMPTModel, files: dict[str, Path], batch_size: int, skip_broken: bool
) -> tuple[list[str], torch.Tensor]:
    """Embeds files, reading one by one, so that a broken one is named; returns ids and vectors.

    Raises:
        DataError: a file cannot be read and `skip_broken` is False, or none can.
    """
    names: list[str] = []
    vectors: list[torch.Tensor] = []
    counted = progress(files.items(), len(files), "files embedded", logger)
    for batch in batches(counted, batch_size):
        features = {}
        for name, path in batch:
            try:
                features[name] = model.video_features(path)
            except DataError as err:
                if not skip_broken:
                    raise DataError(f"{err} (--skip-broken leaves such files out.)") from err
                logger.warning("left out: %s", err)
        if features:
            names += features
            vectors.append(model.encode_video(list(features.values()), batch_size).cpu())
    if not names:
        raise DataError(f"at least one of the {len(files)} files must be readable, but none is.")
    if broken := len(files) - len(names):
        logger.warning("%d of %d files could not be read and were left out", broken, len(files))
    return names, torch.cat(vectors)


def embed(
    *,
    model: Annotated[
        str, Option(help="YAML, saved folder, run folder, checkpoint, or name on the hub.")
    ],
    checkpoint: Annotated[
        str, Option(help="Which checkpoint of a YAML or run folder.")
    ] = "checkpoint_best.pt",
    videos: Annotated[Path | None, Option(help="Folder of video files.")] = None,
    features: Annotated[
        Path | None, Option(help="Folder of <id>.npy: S3D features [seconds, 512].")
    ] = None,
    texts: Annotated[Path | None, Option(help="UTF-8 file, one text per line.")] = None,
    out: Annotated[Path, Option(help="The .npz to write: ids, vectors, fingerprint.")],
    batch_size: Annotated[int, Option(min=1, help="Windows or texts at once.")] = 64,
    device: Device = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16", "float64"],
        Option(help="Precision of the networks."),
    ] = "float32",
    s3d: Annotated[
        Path | None, Option(help="S3D weights for --videos. Default: pretrained_models/.")
    ] = None,
    skip_broken: Annotated[
        bool, Option("--skip-broken", help="Leave unreadable files out, and count them.")
    ] = False,
) -> None:
    """Turn videos, features or texts into vectors.

    The file holds `ids` [N], `vectors` float32 [N, D], and `fingerprint`, that of the weights. It
    is written at the end, in one piece: an interrupted run leaves nothing behind.
    """
    if sum(source is not None for source in (videos, features, texts)) != 1:
        raise LaunchError("give exactly one of `--videos`, `--features` and `--texts`.")
    if out.suffix != ".npz" or out.is_dir():
        raise LaunchError(f"`--out` must name a file that ends in .npz, but is {out}.")
    names: list[str] = []
    files: dict[str, Path] = {}
    if texts:
        lines = read_lines(texts, "a file with one text per line,")
        names = [line.strip() for line in lines if line.strip()]
        if not names:
            raise DataError(f"{texts}: must hold one text per line, but holds none.")
    elif folder := videos or features:
        files = find_files(folder, VIDEO_SUFFIXES if videos else (".npy",))
    loaded = MMPTModel.from_pretrained(
        model,
        checkpoint,
        device=choose_device(device),
        dtype=getattr(torch, dtype),
        s3d=s3d or S3D_WEIGHTS,
    )
    if videos:
        loaded.get_s3d()  # reports missing weights before a video is read
    if texts:
        parts = list(batches(names, batch_size))
        counted = progress(parts, len(names), "texts embedded", logger, unit=batch_size)
        vectors = torch.cat([loaded.encode_text(part, batch_size).cpu() for part in counted])
    else:
        names, vectors = embed_files(loaded, files, batch_size, skip_broken)
    fingerprint = np.array(weights_fingerprint(loaded.fusion, trainable_only=False))
    rows = vectors.float().numpy()
    with atomic_write(out, "wb") as file:
        np.savez(file, ids=np.array(names), vectors=rows, fingerprint=fingerprint)
    logger.info("%s: %d vectors of %d numbers", out, *vectors.shape)


main = Command(embed, stopped="nothing was written; run the same command again")


if __name__ == "__main__":
    sys.exit(main())
