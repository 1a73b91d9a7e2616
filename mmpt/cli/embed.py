"""`mmpt embed`: writes the vectors of a folder of videos or features, or of a text file."""

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from typer import Option

from mmpt.cli.main import Command, Device, choose_device
from mmpt.errors import DataError, LaunchError
from mmpt.media.video_list import VIDEO_SUFFIXES, files_in
from mmpt.utils.artefact import weights_fingerprint
from mmpt.utils.io import atomic_write, read_lines
from mmpt.utils.log import get_logger, progress

# The functions below import these themselves, so that --help and argument errors do not wait.
if TYPE_CHECKING:
    import torch

    from mmpt.inference.inputs import Video
    from mmpt.inference.mmptmodel import MMPTModel

logger = get_logger(__name__)


OTHER_FEATURES = (
    " `mmpt pack` puts feature files of other kinds into shards, which `mmpt index --shards` "
    "reads."
)


def find_files(
    folder: Path, suffixes: Collection[str], hint: str = ""
) -> dict[str, Path]:
    """Returns the files with these suffixes by id, sorted. Hidden files are left out.

    The id of a file is its path in `folder` without the extension.

    Args:
        hint: further sentences for the error if there are no such files.
    Raises:
        DataError: the folder does not exist, has no such file, or two files have the same id.
    """
    kinds = " ".join(sorted(suffixes))
    if not folder.is_dir():
        state = "is a file" if folder.is_file() else "does not exist"
        raise DataError(
            f"{folder}: must be a folder with {kinds} files, but {state}. Correct the path."
        )
    files: dict[str, Path] = {}
    for path in files_in(folder, suffixes):
        relative = path.relative_to(folder)
        name = relative.with_suffix("").as_posix()
        if name in files:
            raise DataError(
                f"{path}: has the same id as {files[name]}; rename one of them."
            )
        files[name] = path
    if not files:
        raise DataError(
            f"{folder}: must be a folder with {kinds} files, but has none.{hint}"
        )
    return dict(sorted(files.items()))


def read_texts(path: Path) -> list[str]:
    """Returns the lines of a text file without empty ones.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or has no text.
    """
    lines = read_lines(path, "a file with one text per line,")
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise DataError(f"{path}: must hold one text per line, but holds none.")
    return texts


def embed_texts(
    model: "MMPTModel", texts: list[str], batch_size: int
) -> "torch.Tensor":
    """Returns the vectors [N, D] of texts."""
    import torch

    from mmpt.inference.embedding import batches, tokenise_texts

    # All texts at once, so that each of its warnings is logged once.
    ids = tokenise_texts(model.tokenizer, texts, model.aligner.max_text_len)
    parts = batches(ids, batch_size)
    counted = progress(parts, len(texts), "texts embedded", logger, unit=batch_size)
    vectors = [model.encode_ids(part, batch_size).cpu() for part in counted]
    return torch.cat(vectors)


def read_features(
    model: "MMPTModel",
    videos: "Mapping[str, Video]",
    names: Iterable[str],
    skip_broken: bool,
) -> "Iterator[tuple[str, torch.Tensor]]":
    """Yields the name and the features of videos, one at a time.

    Args:
        videos: a path or an array for each name.
        names: the names of the videos to read.
        skip_broken: leave out videos that cannot be read, and log their number at the end.
    Raises:
        DataError: a video cannot be read and `skip_broken` is False.
    """
    num_names = 0
    num_broken = 0
    for name in names:
        num_names += 1
        try:
            features = model.video_features(videos[name], name)
        except DataError as err:
            if not skip_broken:
                raise DataError(
                    f"{err} (--skip-broken leaves such files out.)"
                ) from err
            logger.warning("left out: %s", err)
            num_broken += 1
            continue
        yield name, features
    if num_broken:
        logger.warning(
            "%d of %d files could not be read and were left out", num_broken, num_names
        )


def embed_files(
    model: "MMPTModel", files: dict[str, Path], batch_size: int, skip_broken: bool
) -> "tuple[list[str], torch.Tensor]":
    """Returns the ids and the vectors [N, D] of files.

    Files are read one at a time, so that the error can name a broken one.

    Raises:
        DataError: a file cannot be read and `skip_broken` is False, or no file can be read.
    """
    import torch

    from mmpt.inference.embedding import batches

    names: list[str] = []
    vectors: list[torch.Tensor] = []
    counted = progress(files, len(files), "files embedded", logger)
    features = read_features(model, files, counted, skip_broken)
    for batch in batches(features, batch_size):
        batch_names, batch_features = zip(*batch, strict=True)
        names += batch_names
        encoded = model.encode_video(batch_features, batch_size)
        vectors.append(encoded.cpu())
    if not names:
        raise DataError(
            f"at least one of the {len(files)} files must be readable, but none is."
        )
    return names, torch.cat(vectors)


def save_vectors(
    out: Path, names: list[str], vectors: "torch.Tensor", model: "MMPTModel"
) -> None:
    """Writes ids, vectors and the fingerprint of the weights of `model` to an .npz file."""
    fingerprint = np.array(weights_fingerprint(model.fusion, trainable_only=False))
    rows = vectors.float().numpy()
    with atomic_write(out, "wb") as file:
        np.savez(file, ids=np.array(names), vectors=rows, fingerprint=fingerprint)
    logger.info("%s: %d vectors of %d numbers", out, *vectors.shape)


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """The options of commands that embed videos."""

    model: Annotated[
        str,
        Option(
            help="A YAML, saved folder, run folder, checkpoint, or name on the hub."
        ),
    ]
    checkpoint: Annotated[
        str, Option(help="File name of the checkpoint in a run folder, or for a YAML.")
    ] = "checkpoint_best.pt"
    videos: Annotated[Path | None, Option(help="Folder of videos to embed.")] = None
    features: Annotated[
        Path | None,
        Option(help="Folder of features to embed: files <id>.npy, [rows, width]."),
    ] = None
    batch_size: Annotated[
        int, Option(min=1, help="Number of windows or texts per batch.")
    ] = 64
    device: Device = None
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16", "float64"],
        Option(help="Precision of the networks."),
    ] = "float32"
    encoder: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Encoder for --videos, as for mmpt extract. Default: the one that the model was "
            "trained with.",
        ),
    ] = None
    s3d: Annotated[
        Path | None,
        Option(help="S3D weights for --videos. Default: pretrained_models/."),
    ] = None
    skip_broken: Annotated[
        bool,
        Option("--skip-broken", help="Leave unreadable files out, and count them."),
    ] = False


@dataclass(frozen=True, kw_only=True)
class Options(VideoOptions):
    """The options of the command."""

    texts: Annotated[
        Path | None, Option(help="UTF-8 file of texts to embed, one per line.")
    ] = None
    out: Annotated[
        Path, Option(help="The .npz file to write: ids, vectors, fingerprint.")
    ]


def find_videos(options: VideoOptions) -> dict[str, Path]:
    """Returns the files of `--videos` or `--features` by id; see `find_files`."""
    if options.videos:
        return find_files(options.videos, VIDEO_SUFFIXES)
    if options.features:
        return find_files(options.features, (".npy",), OTHER_FEATURES)
    return {}


def load_model(options: VideoOptions) -> "MMPTModel":
    """Returns the model, with the encoder of frames if there are videos.

    Raises:
        CheckpointError: weights are missing or damaged.
        DataError: this encoder cannot be loaded, or the model does not take the features in the
            folder.
    """
    import torch

    from mmpt.inference.mmptmodel import MMPTModel
    from mmpt.media.s3d import S3D_WEIGHTS

    model = MMPTModel.from_pretrained(
        options.model,
        options.checkpoint,
        device=choose_device(options.device),
        dtype=getattr(torch, options.dtype),
        encoder=options.encoder,
        s3d=options.s3d or S3D_WEIGHTS,
    )
    if options.videos:
        model.load_encoder()  # reports missing weights before any video is decoded
    if options.features:
        model.features.check_folder(options.features, str(options.features))
    return model


def embed(options: Options) -> None:
    """Embed videos, features or texts, and save the vectors.

    Writes the arrays `ids` [N] and `vectors` float32 [N, D], and `fingerprint`, the hash of the
    weights, to `--out`. The file is written at the end, so an interrupted run leaves nothing.
    """
    _check_options(options)
    # Mistakes in the inputs are reported before the model is loaded, which takes longer.
    texts = read_texts(options.texts) if options.texts else []
    files = find_videos(options)
    model = load_model(options)
    if options.texts:
        names, vectors = texts, embed_texts(model, texts, options.batch_size)
    else:
        names, vectors = embed_files(
            model, files, options.batch_size, options.skip_broken
        )
    save_vectors(options.out, names, vectors, model)


def _check_options(options: Options) -> None:
    """Raises LaunchError for a wrong combination of options."""
    sources = (options.videos, options.features, options.texts)
    if sum(source is not None for source in sources) != 1:
        raise LaunchError("give exactly one of `--videos`, `--features` and `--texts`.")
    if options.out.suffix != ".npz" or options.out.is_dir():
        raise LaunchError(
            f"`--out` must name a file that ends in .npz, but is {options.out}."
        )


main = Command(
    embed,
    options=Options,
    interrupt_message="nothing was written; run the same command again",
)


if __name__ == "__main__":
    sys.exit(main())
