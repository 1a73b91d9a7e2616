"""The tests of YAML files run in the project's root, to which the paths in YAMLs are relative."""

import pytest

from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
