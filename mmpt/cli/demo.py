"""The main job on a small corpus, end to end: `make demo` runs this, which runs and prints four commands.

With seed 0 they are the commands of the README; another seed gives another corpus, other initial weights and other
folders, by overrides on the same YAMLs. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time

from mmpt.errors import INTERRUPTED

VIDEOCLIP = "projects/retri/videoclip/how2_demo.yaml"
NORTON = "projects/retri/norton/how2_demo.yaml"
SCORES = "projects/retri/norton/test_how2_demo_zs.yaml"


def demo_commands(seed: int) -> list[list[str]]:
    """The four commands of the demo, without the interpreter."""
    data, runs = ("data/demo", "runs/demo") if seed == 0 else (f"data/demo{seed}", f"runs/demo{seed}")
    dataset = [
        f"dataset.bert_name={data}/bert",
        f"dataset.vfeat_dir={data}/feat",
    ]
    training = [
        *dataset,
        f"dataset.tfeat_dir={data}/feat/demo.bert-demo.",
        f"dataset.train_path={data}/how2_s3d_train.lst",
        f"dataset.val_path={data}/how2_s3d_val.lst",
        f"fairseq.common.seed={seed + 1}",
    ]
    videoclip, norton = f"{runs}/videoclip", f"{runs}/norton"
    steps = [
        ["scripts/make_demo_data.py", "--out", data, "--seed", str(seed)],
        ["locallaunch.py", VIDEOCLIP, "--jobtype", "local_small"],
        ["locallaunch.py", NORTON, "--jobtype", "local_small"],
        ["locallaunch.py", SCORES, "--jobtype", "local_predict"],
    ]
    if seed == 0:
        return steps
    start = f"{videoclip}/checkpoint_best.pt"
    steps[1] += [*training, f"fairseq.checkpoint.save_dir={videoclip}", f"eval.save_path={videoclip}"]
    steps[2] += [*training, f"fairseq.checkpoint.save_dir={norton}", f"eval.save_path={norton}"]
    steps[2] += [f"fairseq.checkpoint.restore_file={start}"]
    steps[3] += [*dataset, f"dataset.test_path={data}/val_clips.json", f"eval.save_path={runs}/results"]
    steps[3] += [f"fairseq.common_eval.path=[{start},{norton}/checkpoint_best.pt]"]
    return steps


def main(argv: list[str] | None = None) -> int:
    """Run the demo; return the exit code of the first command that fails, or 0."""
    parser = argparse.ArgumentParser(prog="python -m mmpt.cli.demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="corpus and training seed")
    args = parser.parse_args(argv)
    begin = time.monotonic()
    try:
        for command in demo_commands(args.seed):
            print(f"\n$ python {shlex.join(command)}", flush=True)
            code = subprocess.run([sys.executable, *command], check=False).returncode
            if code:
                print(f"error: this command ended with exit code {code}.", file=sys.stderr)
                return code
    except KeyboardInterrupt:
        print("interrupted; run it again, it goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
    print(f"\nThe demo took {time.monotonic() - begin:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
