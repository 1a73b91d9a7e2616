"""Checks of `mmpt doctor`: the packages that MMPT uses, the GPUs, and the model hub."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

import mmpt
from mmpt.cli.doctor_probes import Facts, ProbeError, probe
from mmpt.cli.finding import Finding, State
from mmpt.utils.help_pages import TORCH_PAGE, install_command

INSTALL_TRAIN = install_command("train")
INSTALL_PREPARE = install_command("prepare")
INSTALL_APP = install_command("app")
INSTALL_FAIRSEQ = (
    "READTHEDOCS=1 pip install --no-deps --no-build-isolation "
    f"-r {Path(mmpt.__file__).parent / 'requirements-fairseq.txt'}"
)
BERT = "bert-base-uncased"
HUB = "model hub"


def check_python() -> Iterable[Finding]:
    """Yields the versions of Python and of this package."""
    yield Finding("Python", "ok", f"{platform.python_version()}, {sys.executable}")
    yield Finding("mmpt", "ok", f"{mmpt.__version__}, {Path(mmpt.__file__).parent}")


def package_check(
    name: str, install: str, state: State = "missing", use: str = ""
) -> Callable[[], Iterable[Finding]]:
    """Returns a check that imports a package.

    Args:
        name: the import name of the package.
        install: the command that installs it.
        state: the state if it cannot be imported.
        use: what it is needed for, if not for every training run.
    """

    def check() -> Iterable[Finding]:
        try:
            facts = probe(name)
        except ProbeError as err:
            yield _failed(name, err, install, state, use)
        else:
            yield Finding(name, "ok", facts["version"])

    return check


def _failed(
    name: str, err: ProbeError, install: str, state: State, use: str = ""
) -> Finding:
    """Returns the finding about a package that cannot be imported."""
    needed = f"; needed for {use}" if use else ""
    if err.is_absent:
        return Finding(name, state, f"not installed ({err}){needed}", install)
    # The version of a package is part of its metadata, which can be read without an import.
    distributions = metadata.packages_distributions().get(name, [])
    if name == "fairseq":
        remedy = f"{install} --force-reinstall"
    elif not distributions:
        remedy = install
    else:
        version = f"{distributions[0]}=={metadata.version(distributions[0])}"
        remedy = f"pip install --force-reinstall --no-deps '{version}'"
    return Finding(name, state, f"does not work: {err}{needed}", remedy)


def check_torchvision() -> Iterable[Finding]:
    """Imports torchvision if it is installed, because transformers then imports it, too.

    It must fit the version and the build of torch.
    """
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return
    try:
        probe("torchvision")
    except ProbeError as err:
        found = f"{version} does not work: {err}. transformers cannot load BERT with it"
        remedy = f"pip uninstall torchvision, or the build for this torch: {TORCH_PAGE}"
        yield Finding("torchvision", "missing", found, remedy)
    else:
        yield Finding("torchvision", "ok", version)


def check_fairseq() -> Iterable[Finding]:
    """Imports fairseq and the task that this package registers in it."""
    try:
        facts = probe("fairseq")
    except ProbeError as err:
        yield _failed("fairseq", err, INSTALL_FAIRSEQ, "missing")
        return
    if facts["task"]:
        yield Finding("fairseq", "ok", f"{facts['version']}, with the task `mmtask`")
    else:
        found = f"{facts['version']}, but the task `mmtask` is not registered"
        yield Finding("fairseq", "missing", found, INSTALL_FAIRSEQ)


def check_requirements() -> Iterable[Finding]:
    """Compares the installed packages with the versions that this package declares."""
    name = "other packages"
    try:
        from packaging.requirements import Requirement

        declared = metadata.requires("mmpt") or []
    except (ImportError, metadata.PackageNotFoundError) as err:
        found = f"versions could not be compared ({err})"
        yield Finding(name, "warning", found, INSTALL_TRAIN)
        return
    wrong = []
    for text in declared:
        needed = Requirement(text)
        if needed.marker and not needed.marker.evaluate({"extra": "train"}):
            continue
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{needed.name} is not installed")
            continue
        if not needed.specifier.contains(version, prereleases=True):
            wrong.append(f"{needed.name} {version} must be {needed.specifier}")
    if wrong:
        yield Finding(name, "warning", "; ".join(wrong), INSTALL_TRAIN)
    else:
        yield Finding(name, "ok", "installed, with versions that should work")


def check_torch() -> Iterable[Finding]:
    """Imports torch, and looks for GPUs and NCCL with it."""
    try:
        facts = probe("torch")
    except ProbeError as err:
        yield _failed("torch", err, INSTALL_TRAIN, "missing")
        yield Finding("GPU", "warning", "not known, because torch does not work")
        return
    yield Finding("torch", "ok", facts["version"])
    yield _gpu_finding(facts, _driver())
    num_gpus = len(facts["gpus"])
    if facts["nccl"]:
        yield Finding("NCCL", "ok", facts["nccl"])
    elif num_gpus > 1:
        remedy = f"Use one GPU (--jobtype local_single), or install torch: {TORCH_PAGE}"
        found = f"not in this torch, which has {num_gpus} GPUs"
        yield Finding("NCCL", "warning", found, remedy)
    else:
        remedy = "Several processes run on the CPU, without GPUs: --jobtype local_2"
        yield Finding("NCCL", "optional", "not used; needed for several GPUs", remedy)


def _driver() -> str:
    """Returns the version of the NVIDIA driver, or "" if there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            query, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.partition("\n")[0].strip()


def _gpu_finding(facts: Facts, driver: str) -> Finding:
    """Returns the finding about the GPUs.

    Args:
        facts: what torch sees.
        driver: version of the driver.
    """
    gpus = facts["gpus"]
    if any(problem for _, problem in gpus):
        return _broken_gpus(gpus)
    if gpus:
        all_names = [name for name, _ in gpus]
        names = [
            f"{all_names.count(name)} x {name}" for name in dict.fromkeys(all_names)
        ]
        versions = f"CUDA {facts['cuda']}, driver {driver or 'not known'}"
        return Finding("GPU", "ok", f"{', '.join(names)}, {versions}")
    if driver and facts["cuda"] is None:
        found = f"found (driver {driver}), but this torch is a CPU-only build"
        remedy = f"Install a torch with CUDA: {TORCH_PAGE}"
        return Finding("GPU", "warning", found, remedy)
    if driver:
        found = f"torch (CUDA {facts['cuda']}) finds no GPU with driver {driver}"
        remedy = "Look at CUDA_VISIBLE_DEVICES, or install a newer driver"
        return Finding("GPU", "warning", found, remedy)
    return Finding("GPU", "optional", "none; training runs on the CPU, in float32")


def _broken_gpus(gpus: Sequence[tuple[str, str]]) -> Finding:
    """Returns the finding about GPUs of which torch cannot use all.

    Args:
        gpus: the name of each GPU, and why torch cannot use it ("": it can).
    """
    # torch counts the GPUs that are visible. The variable may name only some of them.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [*map(str, range(len(gpus)))]
    usable = [
        name for name, (_, problem) in zip(names, gpus, strict=False) if not problem
    ]
    broken = []
    for number, (name, problem) in enumerate(gpus):
        if problem:
            broken.append(f"cuda:{number}, {name}: {problem}")
    found = f"torch cannot use {'; '.join(broken)}"
    remedy = f"Install a torch for this GPU and driver: {TORCH_PAGE}"
    if "out of memory" in found:
        remedy = "End the program that uses the memory of the GPU; nvidia-smi lists it"
    if usable:
        others = f"Or use the others: CUDA_VISIBLE_DEVICES={','.join(usable)}"
        return Finding("GPU", "warning", found, f"{remedy}. {others}")
    cpu = 'Or use the CPU: `--device cpu`, and CUDA_VISIBLE_DEVICES="" for training'
    return Finding("GPU", "missing", found, f"{remedy}. {cpu}")


def check_hub() -> Iterable[Finding]:
    """Yields whether the model hub answers, and where BERT is.

    The shipped YAMLs start from this BERT.
    """
    try:
        facts = probe("hub")
    except ProbeError as err:
        facts = {"cached": False, "offline": False, "problem": str(err)}
        yield Finding(HUB, "warning", f"check failed ({err})", INSTALL_TRAIN)
    else:
        yield _hub_finding(facts)
    if Path(BERT, "config.json").is_file():
        yield Finding(BERT, "ok", f"in the folder {BERT}")
    elif facts["cached"]:
        yield Finding(BERT, "ok", "in the cache of huggingface_hub")
    elif facts["offline"] or facts["problem"]:
        found = "not cached, and the Hub cannot be reached; the demo does not need it"
        remedy = f"mmpt download bert, on a machine with a network; then copy {BERT}"
        yield Finding(BERT, "warning", found, remedy)
    else:
        yield Finding(BERT, "ok", "not here yet; downloaded when it is needed")


def _hub_finding(facts: Facts) -> Finding:
    """Returns the finding about the model hub. Models in local folders do not need it."""
    if facts["offline"]:
        found = "not checked, because HF_HUB_OFFLINE is set; local models work"
        return Finding(HUB, "optional", found)
    if facts["problem"]:
        found = f"does not answer ({facts['problem']}); local models work"
        remedy = "Look at the network and HTTPS_PROXY, or set HF_HUB_OFFLINE=1"
        return Finding(HUB, "warning", found, remedy)
    return Finding(HUB, "ok", f"{facts['url']} answers")
