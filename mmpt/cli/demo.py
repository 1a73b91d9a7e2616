"""The main job on a small corpus, end to end: prints and runs four commands.

With seed 0 they are the commands of the README. Another seed gives another corpus, other initial
weights and other folders, by copies of the same YAMLs.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from typing import Annotated, Any

from typer import Option

from mmpt.cli.app import Command
from mmpt.config.yaml_files import read_yaml, write_yaml
from mmpt.errors import LaunchError

VIDEOCLIP = "projects/retri/videoclip/how2_demo.yaml"
NORTON = "projects/retri/norton/how2_demo.yaml"
SCORES = (
    "projects/retri/norton/test_how2_demo_zs.yaml",
    "projects/retri/norton/test_how2_demo_bg_zs.yaml",
    "projects/retri/norton/test_how2_demo_steps_zs.yaml",
    "projects/retri/norton/test_how2_demo_align_zs.yaml",
)
YAMLS = (VIDEOCLIP, NORTON, *SCORES)


def demo_commands(seed: int) -> list[list[str]]:
    """Returns the four commands of the demo, without `mmpt`."""
    scores = ",".join(yaml_path(path, seed) for path in SCORES)
    return [
        ["make-demo-data", "--out", f"data/demo{seed or ''}", "--seed", str(seed)],
        ["train", yaml_path(VIDEOCLIP, seed), "--jobtype", "local_small"],
        ["train", yaml_path(NORTON, seed), "--jobtype", "local_small"],
        ["train", scores, "--jobtype", "local_predict"],
    ]


def yaml_path(path: str, seed: int) -> str:
    """Returns the YAML to run in place of a shipped one: itself for seed 0, else its copy."""
    return path.replace("projects/retri", f"runs/demo{seed}/yaml") if seed else path


def demo_yamls(seed: int) -> dict[str, dict[str, Any]]:
    """Returns copies of the shipped YAMLs with another seed and folders of their own, by path.

    Raises:
        ConfigError: a shipped YAML is not there.
    """
    copies = {}
    for path in YAMLS:
        text = json.dumps(read_yaml(path))
        for folder in ("data/demo", "runs/demo"):
            text = text.replace(folder, f"{folder}{seed}")
        values = json.loads(text)
        if "train_path" in values["dataset"]:
            values["fairseq"]["common"]["seed"] = seed + 1  # 1 is fairseq's own
        copies[yaml_path(path, seed)] = values
    return copies


def demo(
    seed: Annotated[int, Option(help="Seed of the corpus and of training.")] = 0,
) -> int:
    """Run the main job on the demo data, end to end: make the data, pre-train, post-train, score.

    Run it again after a break and it continues. It needs the YAMLs of `projects/`.
    """
    begin = time.monotonic()
    if missing := [path for path in YAMLS if not os.path.exists(path)]:
        raise LaunchError(
            f"{missing[0]}: no such file. Run the demo in a checkout of MMPT, or copy its folder "
            "`projects` to this one."
        )
    for path, values in demo_yamls(seed).items() if seed else ():
        write_yaml(path, values)
    for command in demo_commands(seed):
        print(f"\n$ mmpt {shlex.join(command)}", flush=True)
        code = subprocess.run([sys.executable, "-m", "mmpt", *command], check=False).returncode
        if code:
            print(f"error: this command ended with exit code {code}.", file=sys.stderr)
            return code
    print(f"\nThe demo took {time.monotonic() - begin:.0f} s.")
    return 0


main = Command(demo, stopped="run it again to continue")


if __name__ == "__main__":
    sys.exit(main())
