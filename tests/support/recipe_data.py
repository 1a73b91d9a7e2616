"""Tiny data of a user who follows DATASET.md: videos, captions, and a server with all downloads.

The weights of S3D and BERT are random. The paths and formats of all files are the real ones.
"""

import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from mmpt.config import DatasetConfig, ModelConfig
from mmpt.media.s3d import S3D
from mmpt.models import MMFusionSeparate
from mmpt.prepare.download.catalogue import CATALOGUE
from tests.support import misbehaving_server as server
from tests.support.videos import Clip, regular_times, truncate, write_video

TRAIN, VAL, BROKEN = ["bb_bbbbbbbb", "-aa-aaaaaaa"], ["ccccccccccc"], "ddddddddddd"
MINE = ["tea", "onion", "pan.v2", "salt"]
TEST_SETS = {  # folder below raw/ -> id of its video
    "msrvtt": "video7010",
    "youcook": "xHr8X2Wpmno",
    "coin": "coincoincoi",
    "crosstask": "crosscrossc",
    "didemo": "54322086@N00_2408598493_274c77d26a.avi",
    "how2-align": "-3CEg4y7mQM",
}

# ---- files of the user: videos and captions


def make_videos(root: Path) -> None:
    sources = [
        write_video(
            root / f"{width}.mp4", regular_times(1), Clip(width=width, height=64)
        )
        for width in (64, 90, 128)
    ]
    places = [root / "raw/howto100m/sub" / f"{name}.mp4" for name in TRAIN + VAL]
    places += [
        root / "raw" / folder / f"{name}.mp4" for folder, name in TEST_SETS.items()
    ]
    places += [root / "raw/mine" / f"{name}.mp4" for name in MINE]
    for number, place in enumerate(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sources[number % len(sources)], place)
    truncate(sources[0], root / "raw/howto100m" / f"{BROKEN}.mp4", 0.3)


def make_captions(folder: Path) -> None:
    """Writes a caption file for each video, in all formats that are read."""
    vtt = (
        "WEBVTT\n\n00:00:00.100 --> 00:00:00.500\ncut the {}\n\n"
        "00:00:00.500 --> 00:00:01.000\nheat the pan\n"
    )
    (folder / "tea.en.vtt").write_text(vtt.format("tomato"))
    (folder / "onion.vtt").write_text(vtt.format("onion"))
    (folder / "pan.v2.srt").write_text(
        "1\n00:00:00,100 --> 00:00:00,900\nwash the pan\n"
    )
    (folder / "salt.json").write_text(
        json.dumps({"segments": [{"start": 0.1, "end": 0.9, "text": "add the salt"}]})
    )


def put_by_hand(root: Path) -> None:
    """Writes the files of the page that `download.py` cannot fetch."""
    (root / "data/msrvtt").mkdir(parents=True)
    (root / "data/msrvtt/MSR_MC_test.csv").write_text(
        "\tkey\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n"
    )
    (root / "data/msrvtt/MSRVTT_FULL_test.csv").write_text("video_id\nvideo7010\n")


# ---- downloads of the page


def save_bert(corpus: Path, folder: Path) -> Path:
    """Writes a BERT with weights, as on the hub, with the vocabulary of the corpus."""
    tokenizer = AutoTokenizer.from_pretrained(str(corpus / "bert"))
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig.from_pretrained(str(corpus / "bert"))).save_pretrained(
            folder
        )
    shutil.copy(corpus / "bert/vocab.txt", folder / "vocab.txt")
    return folder


def saved(state: object) -> bytes:
    with io.BytesIO() as file:
        torch.save(state, file)
        return file.getvalue()


def in_folder(folder: str, files: Mapping[str, str | bytes]) -> dict[str, str | bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return file.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return file.getvalue()


def captions_of(ids: list[str]) -> bytes:
    one = {
        "start": [0.0, 0.4],
        "end": [0.5, 1.0],
        "text": ["cut the onion", "the onion and heat the pan"],
    }
    return json.dumps(dict.fromkeys(ids, one)).encode()


def downloads(bert: Path) -> dict[str, bytes]:
    """Returns the content of all downloads, by the end of the path in their URL."""
    dataset = DatasetConfig(bert_name=str(bert), max_video_len=16, max_len=48)
    start = MMFusionSeparate.from_config(
        dataset, ModelConfig(num_hidden_video_layers=2), pretrained=True
    )
    history = {
        "optimizer_name": "FairseqAdam",
        "lr_scheduler_state": {},
        "num_updates": 0,
    }
    checkpoint = {
        "model": start.state_dict(),
        "optimizer_history": [history],
        "extra_state": {"train_iterator": {"epoch": 1}},
    }
    words = io.BytesIO()
    np.save(words, np.array(["onion", "pan"], dtype=object), allow_pickle=True)
    youcook = pickle.dumps(
        [{"id": f"{TEST_SETS['youcook']}_0", "caption": "cut onion"}]
    )
    steps = "105222\nMake Tea\nhttps://t\n2\npour water,add tea\n\n"
    video = f"105222,{TEST_SETS['crosstask']},https://v\n"
    crosstask = {
        "tasks_primary.txt": steps,
        "tasks_related.txt": steps,
        "videos.csv": video,
        "videos_val.csv": video,
        f"annotations/105222_{TEST_SETS['crosstask']}.csv": "1,0.0,1.0\n",
    }
    row = b"video_id\nvideo0\n"
    msrvtt = {
        "MSRVTT_data.json": b'{"sentences": []}',
        "MSRVTT_train.9k.csv": row,
        "MSRVTT_train.7k.csv": row,
        "MSRVTT_JSFUSION_test.csv": (
            b"key,vid_key,video_id,sentence\nret0,msr7010,video7010,a man\n"
        ),
    }
    return {
        "/s3d_howto100m.pth": saved(S3D().state_dict()),
        "/s3d_dict.npy": words.getvalue(),
        "/videoclip/checkpoint_best.pt": saved(checkpoint),
        "/how2_s3d_train.lst": "\n".join([*TRAIN, BROKEN]).encode(),
        "/how2_s3d_val.lst": "\n".join(VAL).encode(),
        "/sentencified_htm_1200k.json": captions_of([*TRAIN, *VAL, BROKEN]),
        "/raw_caption.zip": zipped(
            {"raw_caption.json": captions_of([*TRAIN, *VAL, BROKEN])}
        ),
        "/msrvtt_data.zip": zipped(in_folder("msrvtt_data", msrvtt)),
        "/youcookii_annotations_trainval.tar.gz": tarred(
            {"youcookii_annotations_trainval.json": b'{"database": {}}'}
        ),
        "/metadata_eval.zip": zipped(
            {
                "data/youcook_val.pkl": youcook,
                "data/youcook_train.pkl": youcook,
                "data/MSRVTT_train.csv": row,
            }
        ),
        "/COIN.json": b'{"database": {}}',
        "/crosstask_release.zip": zipped(in_folder("crosstask_release", crosstask)),
        "/LocalizingMoments/master/data/test_data.json": b"[]",
        "/htm_align.json": b"{}",
    }


def serve_downloads(site: server.Site, bert: Path) -> None:
    files = downloads(bert)
    files |= {
        f"bert-base-uncased/resolve/main/{path.name}": path.read_bytes()
        for path in bert.iterdir()
    }
    for item in CATALOGUE.values():
        for url in (url for file in item.files for url in file.urls):
            path = urlsplit(url).path
            site.serve(
                path, *[data for end, data in files.items() if path.endswith(end)]
            )
