"""A small CrossTask data set, in files as released, with features that show the steps."""

from pathlib import Path

import numpy as np

STEPS = {
    "101": ["cut the tomato", "pour the milk", "stir"],
    "205": ["drill a hole", "add salt"],
    "900": ["knit"],
}
"""Task -> steps; 900 is a related task, whose videos have no annotations."""
NUM_VIDEOS = {"101": 9, "205": 4, "900": 2}


def video_ids(task: str) -> list[str]:
    return [f"v{task}-{number:02d}" for number in range(NUM_VIDEOS[task])]


def task_block(task: str) -> str:
    return f"{task}\nTask {task}\nhttps://x\n{len(STEPS[task])}\n{','.join(STEPS[task])}\n\n"


def write_crosstask(
    folder: Path, held_out: tuple[str, ...] = ("v101-03",)
) -> dict[str, str]:
    """Writes all files and features to `folder`, and returns the `dataset` settings that name them.

    Step s (from 1) of a video is in the seconds 4s+2, 4s+3 and 4s+4. Features 8s to 8s+7 are large
    in these seconds.
    """
    listed = [(task, video) for task in STEPS for video in video_ids(task)]
    train = [f"{task},{video},https://{video}\n" for task, video in listed]
    val = [f"{video[1:4]},{video},https://{video}\n" for video in held_out]
    texts = {
        "train_csv_path": "".join(train),
        "val_csv_path": "".join(val),
        "primary_path": task_block("101") + task_block("205"),
        "related_path": task_block("900"),
    }
    settings = {
        name: str(folder / name) for name in (*texts, "annotation_path", "vfeat_dir")
    }
    for name in ("annotation_path", "vfeat_dir"):
        (folder / name).mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    rng = np.random.default_rng(0)
    for task, video in listed:
        features = rng.normal(scale=0.1, size=(18 + int(video[-1]), 512))
        rows = []
        for step in range(1, len(STEPS[task]) + 1):
            rows.append(f"{step},{4 * step + 2}.5,{4 * step + 4}.25")
            features[4 * step + 2 : 4 * step + 5, 8 * step : 8 * step + 8] += 3
        np.save(folder / "vfeat_dir" / f"{video}.npy", features.astype(np.float16))
        if task != "900":
            path = folder / "annotation_path" / f"{task}_{video}.csv"
            path.write_text("\n".join(rows) + "\n")
    return settings
