"""`mmpt demo`: makes the demo data, trains on it, and scores the checkpoints.

It prints and runs five `mmpt` commands. With seed 0, these are the commands of the README. Any
other seed gives another corpus, other initial weights and other folders. The commands then use
copies of the same YAMLs.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from typing import Annotated, Any

from typer import Option

from mmpt.cli.main import Command, require_projects
from mmpt.config.yaml_files import read_yaml, write_yaml

VIDEOCLIP = "projects/retri/videoclip/how2_demo.yaml"
PLAIN = "projects/retri/norton/how2_demo_plain.yaml"
NORTON = "projects/retri/norton/how2_demo.yaml"
EVALUATIONS = (
    "projects/retri/norton/test_how2_demo_zs.yaml",
    "projects/retri/norton/test_how2_demo_bg_zs.yaml",
    "projects/retri/norton/test_how2_demo_align_zs.yaml",
)
TRAININGS = (VIDEOCLIP, PLAIN, NORTON)
YAMLS = (*TRAININGS, *EVALUATIONS)


def demo_commands(seed: int) -> list[list[str]]:
    """Returns the arguments of `mmpt` in the five commands of the demo."""
    commands = [
        ["make-demo-data", "--out", f"data/demo{seed or ''}", "--seed", str(seed)]
    ]
    for path in TRAININGS:
        commands.append(["train", yaml_path(path, seed), "--jobtype", "local_small"])
    evaluations = ",".join(yaml_path(path, seed) for path in EVALUATIONS)
    commands.append(["train", evaluations, "--jobtype", "local_predict", "--short"])
    return commands


def yaml_path(path: str, seed: int) -> str:
    """Returns the YAML that the demo runs: for seed 0 the shipped one, else the copy of it."""
    return path.replace("projects/retri", f"runs/demo{seed}/yaml") if seed else path


def demo_yamls(seed: int) -> dict[str, dict[str, Any]]:
    """Returns the copies of the shipped YAMLs, by path, with another seed and other folders.

    Raises:
        ConfigError: a shipped YAML does not exist.
    """
    copies = {}
    for path in YAMLS:
        text = json.dumps(read_yaml(path))
        for folder in ("data/demo", "runs/demo"):
            text = text.replace(folder, f"{folder}{seed}")
        values = json.loads(text)
        if "train_path" in values["dataset"]:
            # fairseq's default seed is 1, which the demo uses for seed 0.
            values["fairseq"]["common"]["seed"] = seed + 1
        copies[yaml_path(path, seed)] = values
    return copies


def demo(
    seed: Annotated[
        int, Option(help="Seed of the corpus and of the training runs.")
    ] = 0,
) -> int:
    """Make the demo data, train VideoCLIP on it, continue with Norton, and print the scores.

    A control continues with VideoCLIP's loss for as many updates, so that the scores show what
    Norton's loss changes.

    Writes the corpus to `data/demo` and everything else to `runs/demo`. With `--seed 3`, the
    folders are `data/demo3` and `runs/demo3`. The YAMLs of `projects/` must be in the current
    directory. Run the command again after an interruption to continue.
    """
    begin = time.monotonic()
    require_projects("mmpt demo", *YAMLS)
    if seed:
        for path, values in demo_yamls(seed).items():
            write_yaml(path, values)
    for command in demo_commands(seed):
        print(f"\n$ mmpt {shlex.join(command)}", flush=True)
        environment = os.environ.copy()
        if "local_predict" in command:
            # Hides the log, because the table at the end has all results.
            environment.setdefault("LOGLEVEL", "ERROR")
            print("This takes about a minute.", flush=True)
        code = subprocess.run(
            [sys.executable, "-m", "mmpt", *command], check=False, env=environment
        ).returncode
        if code:
            print(f"error: this command ended with exit code {code}.", file=sys.stderr)
            return code
    print(f"\nThe demo took {time.monotonic() - begin:.0f} s.")
    return 0


main = Command(demo, interrupt_message="run it again to continue")


if __name__ == "__main__":
    sys.exit(main())
