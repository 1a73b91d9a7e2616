"""Embed a folder of videos or features, or a text file: `python -m mmpt.cli.embed --model M --videos DIR --out X.npz`.

The file holds `ids` [N], `vectors` float32 [N, D], and `fingerprint`, that of the weights. It is written at the end, in
one piece: an interrupted run leaves nothing behind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch

from mmpt.cli.devices import choose_device
from mmpt.errors import DataError, LaunchError
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.inference.windows import batches
from mmpt.media.video_list import VIDEO_SUFFIXES
from mmpt.models.checkpoint import weights_fingerprint
from mmpt.utils.command import run_command
from mmpt.utils.io import atomic_write
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
Embedded = tuple[list[str], torch.Tensor]


def find_files(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """Return files of these kinds by id, in order of the ids: the path inside `folder` without its last extension.

    Raises:
        DataError: no such folder, nothing in it, or two files of one id.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: must be a folder, but is {'a file' if folder.exists() else 'not there'}.")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise DataError(f"{path}: has the same id as {files[name]}; rename one of them.")
        files[name] = path
    if not files:
        raise DataError(f"{folder}: must hold files of the kinds {' '.join(sorted(suffixes))}, but holds none.")
    return dict(sorted(files.items()))


def read_texts(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file, stripped; blank ones are skipped.

    Raises:
        DataError: missing, not UTF-8, or without text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as err:
        raise DataError(f"{path}: cannot be read ({err.strerror}).") from err
    except UnicodeDecodeError as err:
        raise DataError(f"{path}: must be a UTF-8 text file with one text per line, but {err}.") from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise DataError(f"{path}: must hold one text per line, but holds none.")
    return texts


def embed_files(model: MMPTModel, files: dict[str, Path], batch_size: int, skip_broken: bool) -> Embedded:
    """Embed files one by one, so that a broken one is named, and their windows in batches.

    Raises:
        DataError: a file cannot be read and `skip_broken` is False, or none can.
    """
    broken: list[str] = []

    def readable() -> Iterator[tuple[str, torch.Tensor]]:
        for name, path in progress(files.items(), len(files), "files embedded", logger):
            try:
                features = model.video_features(path)
            except DataError as err:
                if not skip_broken:
                    raise DataError(f"{err} (--skip-broken leaves such files out.)") from err
                logger.warning("left out: %s", err)
                broken.append(name)
            else:
                yield name, features

    names: list[str] = []
    vectors: list[torch.Tensor] = []
    for batch in batches(readable(), batch_size):
        names += [name for name, _ in batch]
        vectors.append(model.encode_video([features for _, features in batch], batch_size).cpu())
    if broken:
        logger.warning("%d of %d files could not be read and were left out", len(broken), len(files))
    if not names:
        raise DataError(f"at least one of the {len(files)} files must be readable, but none is.")
    return names, torch.cat(vectors)


def embed_texts(model: MMPTModel, texts: list[str], batch_size: int) -> Embedded:
    """Embed texts; each is its own id."""
    parts = list(batches(texts, batch_size))
    counted = progress(parts, len(texts), "texts embedded", logger, unit=batch_size)
    return texts, torch.cat([model.encode_text(part, batch_size).cpu() for part in counted])


def embed(args: argparse.Namespace) -> None:
    """Do what the command line says.

    Raises:
        UserError: bad input; nothing has been written.
    """
    out: Path = args.out
    if out.suffix != ".npz" or out.is_dir():
        raise LaunchError(f"--out must name a file that ends in .npz, but is {out}.")
    if args.batch_size < 1:
        raise LaunchError(f"--batch-size must be at least 1, but is {args.batch_size}.")
    suffixes = VIDEO_SUFFIXES if args.videos else (".npy",)
    source = read_texts(args.texts) if args.texts else find_files(args.videos or args.features, suffixes)
    model = MMPTModel.from_pretrained(
        args.model,
        args.checkpoint,
        device=choose_device(args.device),
        dtype=DTYPES[args.dtype],
        s3d=args.s3d or bool(args.videos),
    )
    if isinstance(source, list):
        names, vectors = embed_texts(model, source, args.batch_size)
    else:
        names, vectors = embed_files(model, source, args.batch_size, args.skip_broken)
    fingerprint = weights_fingerprint(model.fusion, trainable_only=False)
    with atomic_write(out, "wb") as file:
        np.savez(file, ids=np.array(names), vectors=vectors.float().numpy(), fingerprint=np.array(fingerprint))
    logger.info("%s: %d vectors of %d numbers", out, *vectors.shape)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(lambda: embed(_parser().parse_args(argv)), stopped="nothing was written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mmpt.cli.embed", description="Turn videos or texts into vectors.")
    parser.add_argument("--model", required=True, help="YAML, saved folder, run folder, checkpoint, or hub name")
    parser.add_argument("--checkpoint", default="checkpoint_best.pt", help="which checkpoint of a YAML or run folder")
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument("--videos", type=Path, help="folder of video files")
    sources.add_argument("--features", type=Path, help="folder of <id>.npy: S3D features [seconds, 512]")
    sources.add_argument("--texts", type=Path, help="UTF-8 file, one text per line")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write: ids, vectors, fingerprint")
    parser.add_argument("--batch-size", type=int, default=64, help="windows or texts at once (default: 64)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the first GPU, else the CPU)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="precision of the networks")
    parser.add_argument("--s3d", type=Path, help="S3D weights for --videos (default: pretrained_models/)")
    parser.add_argument("--skip-broken", action="store_true", help="leave unreadable files out, and count them")
    return parser


if __name__ == "__main__":
    sys.exit(main())
