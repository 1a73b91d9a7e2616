"""A small CrossTask: files as released, videos whose steps show in the features, and the settings
that name them.
"""

from __future__ import annotations

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


def write_crosstask(folder: Path, held_out: tuple[str, ...] = ("v101-03",)) -> dict[str, str]:
    """Write all files and features under `folder`; return the `dataset` settings that name them.

    Of every annotated video, second 4s+2 to 4s+5 belong to step s (from 1); step s is strong in
    features 8s to 8s+7.
    """
    (folder / "annotations").mkdir(parents=True)
    (folder / "feat").mkdir()
    listed = [(task, video) for task in STEPS for video in video_ids(task)]
    (folder / "videos.csv").write_text(
        "".join(f"{task},{video},https://{video}\n" for task, video in listed)
    )
    (folder / "videos_val.csv").write_text("".join(f"{v[1:4]},{v},https://{v}\n" for v in held_out))
    (folder / "tasks_primary.txt").write_text(task_block("101") + task_block("205"))
    (folder / "tasks_related.txt").write_text(task_block("900"))
    rng = np.random.default_rng(0)
    for task, video in listed:
        seconds = 18 + int(video[-1])
        features = rng.normal(scale=0.1, size=(seconds, 512))
        rows = []
        for step in range(1, len(STEPS[task]) + 1):
            rows.append(f"{step},{4 * step + 2}.5,{4 * step + 4}.25")
            features[4 * step + 2 : 4 * step + 5, 8 * step : 8 * step + 8] += 3
        np.save(folder / "feat" / f"{video}.npy", features.astype(np.float16))
        if task != "900":
            (folder / "annotations" / f"{task}_{video}.csv").write_text("\n".join(rows) + "\n")
    return {
        "train_csv_path": f"{folder}/videos.csv",
        "val_csv_path": f"{folder}/videos_val.csv",
        "primary_path": f"{folder}/tasks_primary.txt",
        "related_path": f"{folder}/tasks_related.txt",
        "annotation_path": f"{folder}/annotations",
        "vfeat_dir": f"{folder}/feat",
    }
