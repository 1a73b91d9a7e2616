"""The catalogue of downloads: published addresses, and the places where the YAMLs look for files.

No address is a guess: `source` says where it is published. Files whose address no program can use
(Google Drive, Baidu, a form) are described in `by_hand`. When the user has put them in their
places, they are checked and recorded like the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mmpt.prepare.download.kinds import Kind


@dataclass(frozen=True)
class File:
    """A file to download.

    target: its place under the root.
    kind: decides how its first and last bytes are checked.
    urls: its addresses, in the order in which they are tried; empty if no program can download it.
    sha256: its hash, if the authors publish one.
    members: for an archive, the name of each wanted member and its place under the root.
    """

    target: str
    kind: Kind
    urls: tuple[str, ...] = ()
    sha256: str | None = None
    members: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HubFolder:
    """A folder under the root with files of a repository on the Hugging Face hub."""

    repo: str
    target: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """The files that one name on the command line stands for.

    about, source: a description, and where the addresses are published.
    by_hand: how to get the files without addresses.
    if_gone: what to try when the addresses fail.
    """

    about: str
    source: str
    files: tuple[File, ...] = ()
    folder: HubFolder | None = None
    by_hand: str = ""
    if_gone: str = ""


WILLOW = "https://www.rocq.inria.fr/cluster-willow/amiech/howto100m"
NORTON_LISTS = "https://raw.githubusercontent.com/XLearning-SCU/2024-ICLR-Norton/main/data/how2"
TAN = "http://www.robots.ox.ac.uk/~htd/tan"


def _s3d_addresses(name: str) -> tuple[str, str]:
    return f"{WILLOW}/{name}", f"https://www.di.ens.fr/~miech/S3D_howto100m/{name}"


CATALOGUE: dict[str, Item] = {
    "bert": Item(
        about="BERT base, uncased; `dataset.bert_name: bert-base-uncased` finds the folder",
        source="https://huggingface.co/google-bert/bert-base-uncased",
        folder=HubFolder(
            "google-bert/bert-base-uncased",
            "bert-base-uncased",
            (
                "config.json",
                "tokenizer_config.json",
                "tokenizer.json",
                "vocab.txt",
                "model.safetensors",
            ),
        ),
    ),
    "videoclip": Item(
        about="VideoCLIP's checkpoint, from which Norton starts",
        source="README of MMPT in fairseq, and of Norton",
        files=(
            File(
                "runs/retri/videoclip/checkpoint_best.pt",
                "torch",
                ("https://dl.fbaipublicfiles.com/MMPT/retri/videoclip/checkpoint_best.pt",),
            ),
        ),
    ),
    "norton": Item(
        about="Norton's checkpoint",
        source="README of https://github.com/XLearning-SCU/2024-ICLR-Norton",
        files=(File("runs/retri/norton/checkpoint_best.pt", "torch"),),
        by_hand="Google Drive asks before it gives a file of this size, so open "
        "https://drive.google.com/file/d/1ovUBCb-XSoD7bAFKAVa5w13yUqXmCpiS/view in a browser.",
    ),
    "s3d": Item(
        about="S3D weights trained on HowTo100M (MIL-NCE), and the words of its text tower",
        source="README of https://github.com/antoine77340/S3D_HowTo100M, and its author in issue 1",
        files=(
            File(
                "pretrained_models/s3d_howto100m.pth", "torch", _s3d_addresses("s3d_howto100m.pth")
            ),
            File("pretrained_models/s3d_dict.npy", "npy", _s3d_addresses("s3d_dict.npy")),
        ),
        if_gone="Users reported in 2024 that the first address had gone "
        "(https://github.com/antoine77340/S3D_HowTo100M/issues/14, where one of them offers "
        "copies).",
    ),
    "how2-lists": Item(
        about="ids of HowTo100M's training and validation videos",
        source="DATASET.md of Norton: 'We have provided our splits in data/how2'",
        files=tuple(
            File(f"data/how2/{name}", "text", (f"{NORTON_LISTS}/{name}",))
            for name in ("how2_s3d_train.lst", "how2_s3d_val.lst")
        ),
        if_gone="The lists are the ids of the videos that you have features of; "
        "mmpt pack drops the others.",
    ),
    "captions": Item(
        about="sentences of 1.2 million HowTo100M videos with their times (TAN)",
        source="DATASET.md of Norton; https://www.robots.ox.ac.uk/~vgg/research/tan/",
        files=(
            File(
                "data/how2/sentencified_htm_1200k.json",
                "json",
                (f"{TAN}/sentencified_htm_1200k.json",),
            ),
        ),
    ),
    "raw-captions": Item(
        about="HowTo100M's raw captions, which VideoCLIP was trained with (3.4 GB packed)",
        source="README.txt of https://www.di.ens.fr/willow/research/howto100m/",
        files=(
            File(
                "data/how2/raw_caption.zip",
                "zip",
                (f"{WILLOW}/raw_caption.zip",),
                members={"raw_caption.json": "data/how2/raw_caption.json"},
            ),
        ),
        if_gone="The site's page names the addresses of the day: https://www.di.ens.fr/willow/research/howto100m/.",
    ),
    "how2-features": Item(
        about="S3D features of HowTo100M (474 GB with captions)",
        source="DATASET.md of Norton",
        by_hand="They are on Baidu: https://pan.baidu.com/s/1b8nTw7-IzbDlJlakbVhwNA?pwd=nk6e. Join "
        "and unpack them with `cat Howto100_feature.tar.* | tar -x`, and put one <video id>.npy "
        "for each video into data/feat/feat_how2_s3d; or extract them yourself with "
        "mmpt extract.",
    ),
    "how2-align": Item(
        about="HTM-Align: 80 videos whose sentences are aligned by hand",
        source="https://github.com/TengdaHan/TemporalAlignNet/tree/main/htm_align",
        files=(File("data/how2-align/htm_align.json", "json", (f"{TAN}/htm_align.json",)),),
    ),
    "msrvtt": Item(
        about="MSR-VTT: captions and splits of text-video retrieval",
        source="README of https://github.com/ArrowLuo/CLIP4Clip",
        files=(
            File(
                "data/msrvtt/msrvtt_data.zip",
                "zip",
                ("https://github.com/ArrowLuo/CLIP4Clip/releases/download/v0.0/msrvtt_data.zip",),
                members={
                    name: f"data/msrvtt/{name}"
                    for name in (
                        *("MSRVTT_data.json", "MSRVTT_train.9k.csv", "MSRVTT_train.7k.csv"),
                        "MSRVTT_JSFUSION_test.csv",
                    )
                },
            ),
        ),
    ),
    "msrvtt-qa": Item(
        about="MSR-VTT: the multiple-choice test",
        source="no published address is known to us",
        files=(File("data/msrvtt/MSR_MC_test.csv", "text"),),
        by_hand="It is part of the evaluation data of the JSFusion paper "
        "(https://arxiv.org/abs/1808.02559). A user found a copy on Google Drive: "
        "https://github.com/facebookresearch/fairseq/issues/4364.",
    ),
    "msrvtt-full": Item(
        about="MSR-VTT: the ids of the full test split, which VideoCLIP's fine-tuning adds to its "
        "training videos",
        source="no published address is known to us",
        files=(File("data/msrvtt/MSRVTT_FULL_test.csv", "text"),),
        by_hand="Write a line `video_id`, then video7010 to video9999, a line each.",
    ),
    "youcook": Item(
        about="YouCook2: the annotations",
        source="http://youcook2.eecs.umich.edu/download",
        files=(
            File(
                "data/youcook/youcookii_annotations_trainval.tar.gz",
                "tar.gz",
                (
                    "http://youcook2.eecs.umich.edu/static/YouCookII/youcookii_annotations_trainval.tar.gz",
                ),
                members={
                    name: f"data/youcook/{name}"
                    for name in ("youcookii_annotations_trainval.json",)
                },
            ),
        ),
    ),
    "youcook-clips": Item(
        about="YouCook2: clips to score and to train on; MSR-VTT: VideoCLIP's training videos",
        source="README of https://github.com/antoine77340/howto100m; https://github.com/facebookresearch/fairseq/issues/5049",
        files=(
            File(
                "data/youcook/metadata_eval.zip",
                "zip",
                (f"{WILLOW}/metadata_eval.zip",),
                members={
                    "youcook_val.pkl": "data/youcook/youcook_val.pkl",
                    "youcook_train.pkl": "data/youcook/youcook_train.pkl",
                    "MSRVTT_train.csv": "data/msrvtt/MSRVTT_train.csv",
                },
            ),
        ),
        if_gone="It is the evaluation data of https://github.com/antoine77340/howto100m; put its "
        "files where `--list` says.",
    ),
    "coin": Item(
        about="COIN: the annotations",
        source="https://github.com/coin-dataset/annotations",
        files=(
            File(
                "data/coin/COIN.json",
                "json",
                ("https://raw.githubusercontent.com/coin-dataset/annotations/master/COIN.json",),
            ),
        ),
    ),
    "crosstask": Item(
        about="CrossTask: tasks, videos and annotations, packed",
        source="README of https://github.com/DmZhukov/CrossTask",
        files=(
            File(
                "data/crosstask/crosstask_release.zip",
                "zip",
                ("https://www.di.ens.fr/~dzhukov/crosstask/crosstask_release.zip",),
            ),
        ),
    ),
    "didemo": Item(
        about="DiDeMo: the test moments",
        source="https://github.com/LisaAnne/LocalizingMoments, section 'Annotations'",
        files=(
            File(
                "data/didemo/test_data.json",
                "json",
                (
                    "https://raw.githubusercontent.com/LisaAnne/LocalizingMoments/master/data/test_data.json",
                ),
            ),
        ),
    ),
}
