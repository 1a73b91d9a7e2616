"""Links from error messages to the documentation."""

import re
from importlib import metadata
from pathlib import Path

import pytest

from mmpt.cli.main import main
from mmpt.errors import (
    CheckpointError,
    ConfigError,
    DamagedCheckpointError,
    DataError,
    DeviceMemoryError,
    HubError,
    LaunchError,
)
from mmpt.utils import help_pages
from mmpt.utils.help_pages import PAGES, install_command, page_of
from tests.support.paths import ROOT

SEARCH = "docs/guides/embed-and-search.md"


def anchors(document: str) -> list[str]:
    """Returns the anchors of a Markdown file, as GitHub and the site make them."""
    text = (ROOT / document).read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    words = [re.sub(r"[^a-z0-9 -]", "", title.lower()) for title in titles]
    return [title.replace(" ", "-") for title in words]


@pytest.mark.parametrize("page", sorted({page for _, _, page in PAGES if page}))
def test_every_page_and_its_section_exist(page: str) -> None:
    document, _, anchor = page.partition("#")
    assert anchor in anchors(document)


@pytest.mark.parametrize(
    ("error", "page"),
    [
        (
            ConfigError("x.yaml", ["`dataset.max_len` must be at least 1, but is 0."]),
            "pretraining.md#write-a-yaml",
        ),
        (
            ConfigError("x.yaml", ["`loss.x` is not a known key."]),
            "docs/concepts/losses.md#keys",
        ),
        (
            ConfigError("x.yaml", ["`slurm.time` must be at least 60."]),
            "docs/guides/clusters.md#slurm",
        ),
        (
            ConfigError("x.yaml", ["`slurm.time` is wrong.", "`loss.x` is wrong."]),
            "pretraining.md#write-a-yaml",
        ),
        (
            LaunchError("--rdzv-endpoint a:1: node 0 did not answer."),
            "docs/guides/clusters.md#several-machines",
        ),
        (
            DataError("feat/features.json: `width` must be 512, but is 768."),
            "docs/guides/own-videos.md#features-that-you-have-already",
        ),
        (
            LaunchError("exactly one of `--videos` and `--features` must be given."),
            "docs/guides/own-videos.md#features-that-you-have-already",
        ),
        (
            LaunchError("`--key` is an option for `--features`: leave it out."),
            "docs/guides/own-videos.md#features-that-you-have-already",
        ),
        (LaunchError("give one of `--videos`, `--features` and `--texts`."), None),
        (HubError("me/mine: not found."), f"{SEARCH}#keep-or-publish-a-model"),
        (LaunchError("--device cuda: not a device of this machine."), None),
        (
            DamagedCheckpointError("x.pt is cut short."),
            "docs/reliability.md#checkpoints-are-complete",
        ),
        (CheckpointError("x.pt: no such file."), None),
        (
            DeviceMemoryError("out of memory with `clips_per_forward: 64`."),
            "pretraining.md#fit-training-into-memory",
        ),
        (DeviceMemoryError("`--encoder s3d`: the memory of the GPU is full."), None),
        (
            CheckpointError("x.pt needs `slurm.time`. See docs/guides/clusters.md."),
            None,
        ),
    ],
)
def test_every_error_links_its_page(error: Exception, page: str | None) -> None:
    assert page_of(error, str(error)) == page


def test_a_command_prints_the_page_after_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    yaml = tmp_path / "x.yaml"
    yaml.write_text("dataset: {max_len: 0}")
    assert main(["train", str(yaml)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {yaml}: ")
    assert error.endswith("\nSee pretraining.md#write-a-yaml\n")
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(yaml)]) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"\nSee {ROOT}/pretraining.md#write-a-yaml\n")
    # An installed package has no documentation.
    monkeypatch.setattr(help_pages, "ROOT", tmp_path)
    assert main(["train", str(yaml)]) == 2
    error = capsys.readouterr().err
    assert error.endswith("\nSee pretraining.md#write-a-yaml in the source of MMPT\n")


def test_the_install_command_fits_the_way_mmpt_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", lambda name: "1.0")
    assert install_command("app") == "pip install 'mmpt[app]'"
    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.chdir(ROOT)
    assert install_command("app") == "pip install '.[app]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("app") == f"pip install '{ROOT}[app]'"
