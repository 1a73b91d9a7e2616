"""Pages of the documentation and commands that help with an error of the user."""

import os
import re
import shlex
from importlib import metadata
from pathlib import Path

import mmpt
from mmpt.errors import (
    ConfigError,
    DamagedCheckpointError,
    DataError,
    DeviceMemoryError,
    HubError,
    LaunchError,
    UserError,
)

ROOT = Path(mmpt.__file__).parents[1]
"""Root of the repository, if MMPT runs in a checkout."""
TORCH_PAGE = "https://pytorch.org/get-started/locally"
"""Explains how to install torch and torchvision in the builds that fit a machine."""
WRITE_YAML = "pretraining.md#write-a-yaml"
OWN_FEATURES = "docs/guides/own-videos.md#features-that-you-have-already"
MEMORY = "pretraining.md#fit-training-into-memory"
PAGES: tuple[tuple[type[Exception], str, str | None], ...] = (
    (ModuleNotFoundError, "", "docs/install.md#install-into-your-own-environment"),
    (LaunchError, "fairseq is not", "docs/install.md#install-into-your-own-environment"),
    (DeviceMemoryError, "checkpoint_activations|clips_per_forward", MEMORY),
    (DeviceMemoryError, "", None),
    (DamagedCheckpointError, "", "docs/reliability.md#checkpoints-are-complete"),
    (UserError, r"`slurm\.|\bsbatch\b", "docs/guides/clusters.md#slurm"),
    (LaunchError, "--n(nodes|ode-rank)|--rdzv", "docs/guides/clusters.md#several-machines"),
    (LaunchError, "--jobtype", "docs/guides/jobs.md#start-a-job"),
    (UserError, "training would be useless", "DATASET.md#6-check-the-data"),
    (HubError, "", "docs/guides/embed-and-search.md#keep-or-publish-a-model"),
    (UserError, "--encoder", "docs/guides/own-videos.md#features-from-other-encoders"),
    (LaunchError, "(and|with|for) `--features`", OWN_FEATURES),
    (DataError, r"--features|features\.json", OWN_FEATURES),
    (DataError, "--(train|val)-list|`dataset.(train|val)_path", "DATASET.md#lists"),
    (DataError, "captions must be", "DATASET.md#captions"),
    (ConfigError, "the override `", "docs/guides/jobs.md#change-a-setting-for-one-run"),
    (ConfigError, "clips_per_forward|checkpoint_activations", MEMORY),
    (ConfigError, r"`loss\.", "docs/concepts/losses.md#keys"),
    (ConfigError, "`retri|`num_cands`", "docs/concepts/retrieval-refresh.md#keys"),
    (ConfigError, "", WRITE_YAML),
)  # fmt: skip
"""Class of the error, a pattern in its message, and the page with its section, or None for no page.
The first match counts. Paths are relative to the root of the repository."""


def page_of(error: Exception, message: str) -> str | None:
    """Returns the page that helps with an error, or None if there is none, or if the message names
    the document already.
    """
    problems = error.problems if isinstance(error, ConfigError) else [message]
    pages = {_page_of_problem(error, problem) for problem in problems}
    page = pages.pop() if len(pages) == 1 else WRITE_YAML
    if page is None or page.partition("#")[0] in message:
        return None
    return page


def place_of(page: str) -> str:
    """Returns the path of a page from the current folder.

    An installed package has no documentation. The result then names the page in the source.
    """
    if not (ROOT / page.partition("#")[0]).exists():
        return f"{page} in the source of MMPT"
    return page if Path.cwd() == ROOT else os.path.join(ROOT, page)


def install_command(extra: str) -> str:
    """Returns the command that installs an extra of `mmpt`.

    pip knows the extras of an installed `mmpt`. If none is installed, pip would look for a package
    of this name in the index, so that the command must name the checkout.
    """
    try:
        metadata.version("mmpt")
        source = "mmpt"
    except metadata.PackageNotFoundError:
        source = "." if Path.cwd() == ROOT else str(ROOT)
    return f"pip install {shlex.quote(f'{source}[{extra}]')}"


def _page_of_problem(error: Exception, problem: str) -> str | None:
    for kind, pattern, page in PAGES:
        if isinstance(error, kind) and re.search(pattern, problem):
            return page
    return None
