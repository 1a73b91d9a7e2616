"""Learning on the demo in the same number of updates: towers without padding (ours), and padded.

    python benchmarks/learning.py    # about 20 minutes on 2 cores; run it again to continue
    python benchmarks/learning.py --ours model.checkpoint_activations=16    # another setting

The first part compares loss curves. Both sides train VideoCLIP and Norton in float32 without
dropout, from the same weights and with the plan of the first epoch. (Later plans depend on the
weights. A single different neighbour would give different batches.)

The second part compares retrieval. For each seed, both sides train with dropout. The seed decides
the corpus, the initial weights, the batches and the dropout. The sides drop different values, so
the scores of a single seed differ by chance. The checkpoints are scored zero-shot on the held-out
videos of the demo.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from results import ROOT, Figure, Options, at_least, record, run_script

VIDEOCLIP = "projects/retri/videoclip/how2_demo.yaml"
NORTON = "experiments/norton.yaml"
SCORES = "projects/retri/norton/test_how2_demo_zs.yaml"
PLAIN = ["model.packed=false"]
METRICS = {
    "clip R@1": ("RetrievalMetric", "R1"),
    "whole video R@1, caption average": ("FullVideoRetrievalMetric", "R1"),
    "whole video R@1, DTW as published": ("FullVideoRetrievalMetric", "DTW-R1"),
}
STAGES = ("VideoCLIP", "Norton")


def run(*command: object, log: Path) -> str:
    """Runs a command of the project and returns its log.

    If the log exists, the command has finished in an earlier run, and is not run again.
    """
    if log.exists():
        return log.read_text()
    print(f"{log.parent.name}: {log.stem}", flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | {"LOGLEVEL": "INFO"},  # show the whole log
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
    printed = done.stdout + done.stderr
    log.write_text(printed)
    return printed


def make_data(folder: Path, seed: int, *, dropout: bool) -> Path:
    """Makes the demo data, with a BERT without dropout if asked for; returns its folder."""
    suffix = "" if dropout else "-no-dropout"
    data = folder / f"data{seed}{suffix}"
    command = ("scripts/make_demo_data.py", "--out", data, "--seed", seed)
    run(*command, log=folder / f"{data.name}.log")
    if not dropout:
        path = data / "bert" / "config.json"
        config = json.loads(path.read_text())
        config["hidden_dropout_prob"] = 0.0
        config["attention_probs_dropout_prob"] = 0.0
        path.write_text(json.dumps(config))
    return data


def train(
    data: Path, folder: Path, seed: int, options: list[str], start: Path | None = None
) -> list[str]:
    """Trains VideoCLIP and then Norton, and returns the logs of both.

    Args:
        data: folder of the demo data.
        folder: folder of the runs.
        options: overrides of both YAMLs.
        start: checkpoint from which Norton starts. Default: the best one of the VideoCLIP run.
    """
    common = [
        "--jobtype",
        "local_small",
        f"dataset.bert_name={data}/bert",
        f"dataset.vfeat_dir={data}/feat",
        f"dataset.tfeat_dir={data}/feat/demo.bert-demo.",
        f"dataset.train_path={data}/how2_s3d_train.lst",
        f"dataset.val_path={data}/how2_s3d_val.lst",
        f"fairseq.common.seed={seed + 1}",
        "fairseq.common.log_interval=1",
        *options,
    ]
    start = start or folder / "VideoCLIP" / "checkpoint_best.pt"
    stages = ((VIDEOCLIP, []), (NORTON, [f"fairseq.checkpoint.restore_file={start}"]))
    logs = []
    for stage, (yaml, more) in zip(STAGES, stages, strict=True):
        where = [
            f"fairseq.checkpoint.save_dir={folder}/{stage}",
            f"eval.save_path={folder}/{stage}",
        ]
        command = ("locallaunch.py", yaml, *common, *where, *more)
        logs.append(run(*command, log=folder / f"{stage}.log"))
    return logs


def losses(log: str) -> list[float]:
    """Returns the training loss of every update."""
    values = re.findall(r"\| train_inner \| .*? loss=([\d.]+)", log)
    return [float(value) for value in values]


def held_out_loss(log: str) -> float:
    """Returns the loss on the validation videos after the last update."""
    values = re.findall(r"\| valid \| .*? loss ([\d.]+)", log)
    return float(values[-1])


def compare_curves(folder: Path, seed: int, ours: list[str]) -> list[Figure]:
    """Trains both sides without dropout and returns the largest differences of their losses."""
    data = make_data(folder, seed, dropout=False)
    # Both Norton runs start from our VideoCLIP checkpoint.
    start = folder / "curve-ours" / "VideoCLIP" / "checkpoint_best.pt"
    options = "freeze_plan=true"
    our_logs = train(data, folder / "curve-ours", seed, [*ours, options], start)
    plain_logs = train(data, folder / "curve-plain", seed, [*PLAIN, options], start)
    figures = []
    for stage, log, other in zip(STAGES, our_logs, plain_logs, strict=True):
        curve = losses(log)
        plain = losses(other)
        assert len(curve) == len(plain) > 0, (stage, len(curve), len(plain))
        differences = [abs(a - b) / b for a, b in zip(curve, plain, strict=True)]
        run_text = f"{stage} without dropout, seed {seed}, {len(curve)} updates"
        figure = Figure(
            f"{run_text}: largest difference of a loss",
            "%",
            ours=[100 * max(differences)],
            note=f"last losses {curve[-1]} and {plain[-1]}",
        )
        figures.append(figure)
    return figures


def score(data: Path, folder: Path) -> dict[str, float]:
    """Scores the checkpoints of both stages; returns the percentages by metric and stage."""
    paths = ",".join(f"{folder}/{stage}/checkpoint_best.pt" for stage in STAGES)
    overrides = [
        f"dataset.bert_name={data}/bert",
        f"dataset.vfeat_dir={data}/feat",
        f"dataset.test_path={data}/val_clips.json",
        f"fairseq.common_eval.path=[{paths}]",
        f"eval.save_path={folder}/scores",
    ]
    command = ("locallaunch.py", SCORES, "--jobtype", "local_predict", *overrides)
    run(*command, log=folder / "scores.log")
    results = folder / "scores" / "results.json"
    rows = json.loads(results.read_text())
    percentages = {}
    for stage, row in zip(STAGES, rows, strict=True):
        for name, (metric, key) in METRICS.items():
            percentages[f"{name} after {stage}"] = 100 * row["metrics"][metric][key]
    return percentages


def compare_retrieval(folder: Path, seeds: list[int], ours: list[str]) -> list[Figure]:
    """Trains and scores both sides with dropout, for every seed."""
    # Metric -> percentage of each seed.
    our_scores: dict[str, list[float]] = defaultdict(list)
    padded_scores: dict[str, list[float]] = defaultdict(list)
    # Stage -> held-out loss of each seed.
    our_losses: dict[str, list[float]] = defaultdict(list)
    padded_losses: dict[str, list[float]] = defaultdict(list)
    sides = (
        ("ours", ours, our_losses, our_scores),
        ("plain", PLAIN, padded_losses, padded_scores),
    )
    for seed in seeds:
        data = make_data(folder, seed, dropout=True)
        for name, options, side_losses, side_scores in sides:
            place = folder / f"seed{seed}-{name}"
            logs = train(data, place, seed, options)
            for stage, log in zip(STAGES, logs, strict=True):
                side_losses[stage].append(held_out_loss(log))
            for what, percentage in score(data, place).items():
                side_scores[what].append(percentage)
    figures = []
    for stage, mine in our_losses.items():
        padded = padded_losses[stage]
        differences = [f"{a - b:+.3f}" for a, b in zip(mine, padded, strict=True)]
        note = f"seeds {seeds}, ours less padded: {', '.join(differences)}"
        figures.append(
            Figure(f"loss on held-out videos after {stage}", "", mine, padded, note)
        )
    for what, mine in our_scores.items():
        padded = padded_scores[what]
        pairs = [f"{a:.1f}, {b:.1f}" for a, b in zip(mine, padded, strict=True)]
        our_mean = statistics.mean(mine)
        padded_mean = statistics.mean(padded)
        means = f"{our_mean:.1f} and {padded_mean:.1f}"
        note = f"seeds {seeds}, ours and padded: {'; '.join(pairs)}; means {means}"
        figures.append(Figure(what, "%", mine, padded, note))
    return figures


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    work = Path(tempfile.gettempdir()) / "mmpt-learning"
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--ours",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="overrides of our runs",
    )
    parser.add_argument(
        "--work", type=Path, default=work, help="folder of the runs, which is kept"
    )
    args = parser.parse_args()
    name = "-".join(args.ours) or "default"
    folder = args.work.resolve() / name
    figures = compare_curves(folder, args.seeds[0], args.ours)
    figures += compare_retrieval(folder, args.seeds, args.ours)
    record(figures, args.out)


if __name__ == "__main__":
    run_script(main)
