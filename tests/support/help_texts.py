"""The help of a command, for comparisons with the documents."""

from collections.abc import Sequence

import pytest

from mmpt.cli.main import main


def help_of(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the help of `mmpt <words>`, and of `mmpt predict` if options are passed on to it."""
    assert main([words[0], "--help"]) == 0
    if "local_predict" in words:
        assert main(["predict", "--help"]) == 0
    return capsys.readouterr().out
