r"""Runs all checks and measurements that need a GPU, in at most 12 minutes, without a network.

    python benchmarks/gpu_day --wheels wheels --out gpu_day    # on a machine with an H100 or H200
    python benchmarks/gpu_day --rehearse --out /tmp/gpu_day    # small versions on a CPU

The folder of `--out` gets `report.json`, the only file that is needed later. `log.txt` has the
output of all parts, and `trace.json.gz` is a profile for chrome://tracing or Perfetto.

Each part runs in its own process with a time limit. If a part fails, its error and the values that
it measured before are reported, and the next part follows. If the command is run again with the
same `--out`, it runs the parts that have not run yet, and then repeats the parts that failed. The
parts, most valuable first:

    tests      tests/e2e/test_gpu.py and all tests marked `gpu`
    step       a training step of Norton's recipe in several precisions, and a plain one
    compiled   the same step with `model.compile`
    profile    kernels and gaps of that step
    search     exact search of 18,750 centres among 1.2 million vectors, and the plan
    embed      the embedding pass
    training   short trainings: in fp16, on the CPU, and in fp16 with a kill and a second start
    extract    S3D and CLIP ViT-L/14 on random weights
    processes  two processes on one GPU, with NCCL if it allows that, else with gloo

Weights are random, because no hub can be reached. Data are generated.

`--wheels` names a folder of Python packages that the machine lacks. They are installed into a
temporary folder, so that the machine stays as it is, and its own torch is used. This makes the
folder for Python 3.12 (the machine needs the versions of its Python), 33 MiB in all:

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --platform manylinux2014_x86_64 -d wheels annotated-types==0.8.0 bitarray==3.12.3 \
        faiss-cpu==1.15.1 httpcore2==2.16.2 httpx2==2.16.2 hydra-core==1.3.2 json-stream==2.5.1 \
        json-stream-rs-tokenizer==0.5.4 langcodes==3.5.1 omegaconf==2.3.0 pydantic==2.14.3 \
        pydantic-core==2.50.4 submitit==1.5.4 tensorboardX==2.6.5 truststore==0.10.5 \
        typing-inspection==0.4.5
    READTHEDOCS=1 python -m pip wheel --no-deps --no-build-isolation -w wheels \
        fairseq-fixed==0.12.3.1 antlr4-python3-runtime==4.9.3

    faiss-cpu 18.0 MiB, fairseq-fixed 10.7, pydantic-core 2.2, pydantic 0.5, bitarray 0.4,
    json-stream-rs-tokenizer 0.3, langcodes 0.2, hydra-core 0.1, antlr4-python3-runtime 0.1,
    httpx2 0.1, httpcore2, omegaconf, submitit and tensorboardX 0.1 each, the other four less

A machine for deep learning usually has the other packages: transformers 5, tokenizers, safetensors,
huggingface-hub, typer, rich, lazy-loader, filelock, psutil, regex, sacrebleu, scikit-learn, Jinja2,
matplotlib, pytest with pytest-timeout, and hypothesis. With `av==18.1.0` (34 MiB) in the folder,
`extract` also decodes videos.
"""

import argparse
import importlib
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def install(wheels: Path, site: Path) -> None:
    """Installs all wheels of a folder into the folder `site`.

    Raises:
        SystemExit: the folder has no wheels, or pip fails.
    """
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        raise SystemExit(f"error: --wheels {wheels}: no *.whl files in this folder.")
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(site)]
    if subprocess.call([*command, *files]):
        raise SystemExit("error: pip could not install the wheels.")


def main() -> int:
    """Runs the command and returns its exit code: 1 if a part has failed, else 0."""
    # The directory is run as a program, so Python has put it in front of the path.
    sys.path[0] = str(HERE.parent)
    runner = importlib.import_module("gpu_day.runner")
    parser = argparse.ArgumentParser(
        prog="gpu_day",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--wheels", type=Path, help="folder of packages to install")
    parser.add_argument(
        "--out", type=Path, default=Path("gpu_day"), help="folder of the report"
    )
    parser.add_argument(
        "--minutes", type=float, default=12, help="time for all parts (default: 12)"
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=[part.name for part in runner.PARTS],
        help="run only these parts",
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="run small versions on the CPU"
    )
    args = parser.parse_args()
    if not args.minutes > 0:
        parser.error(f"--minutes must be above 0, but is {args.minutes:g}")
    parts = [
        part for part in runner.PARTS if args.parts is None or part.name in args.parts
    ]
    # Ends the current part, and removes temporary files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="gpu_day_") as folder:
        site = Path(folder) / "site"
        if args.wheels:
            install(args.wheels, site)
        run = runner.BenchmarkRun(args.out, Path(folder), args.rehearse)
        run.run(parts, seconds=60 * args.minutes)
    print(run.summary())
    return 1 if run.failed(parts) else 0


if __name__ == "__main__":
    sys.exit(main())
