"""`mmpt app`: the files that it serves, and mistakes. tests/app tests the page itself."""

import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mmpt.cli import app, index
from mmpt.errors import DataError
from mmpt.inference.index_folder import IndexFolder
from tests.support.tiny_run import make_run


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of an index, next to the folder of the features."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "features").mkdir()
    rows = np.random.default_rng(0).standard_normal((20, 512)).astype(np.float16)
    np.save(folder / "features" / "one.npy", rows)
    options = ["--model", make_run(folder / "run"), "--features", folder / "features"]
    assert index.main([str(folder / "index"), *map(str, options)]) == 0
    return folder / "index"


@pytest.fixture
def calls(monkeypatch) -> list[dict]:
    """Records the arguments of the page, which is closed at once."""
    calls = []

    @contextmanager
    def serve_page(index, files, **options):
        calls.append({"index": index, "files": files} | options)
        yield "http://127.0.0.1:1"

    fake = ModuleType("mmpt.app.page")
    fake.serve_page = serve_page
    monkeypatch.setitem(sys.modules, "mmpt.app.page", fake)

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    return calls


def test_the_page_gets_the_index_and_its_folders(built, tmp_path, calls, capsys):
    features = built.parent / "features"
    assert IndexFolder(built).read_settings().folders == (str(features),)
    (tmp_path / "one.mp4").write_bytes(b"")
    arguments = ["--videos", tmp_path, "--port", 7999, "--top", 3, "--device", "cpu"]
    assert app.main([str(built), *map(str, arguments)]) == 130
    assert "the page is closed" in capsys.readouterr().err
    (call,) = calls
    assert (call["host"], call["port"], call["top"]) == ("127.0.0.1", 7999, 3)
    assert call["files"].video("one") == tmp_path / "one.mp4"
    assert call["files"].features("one") == features / "one.npy"
    assert call["index"].settings.num_videos == 1


def test_the_model_gets_the_encoder(built, calls):
    assert app.main([str(built), "--encoder", "missing.Encoder"]) == 130
    (call,) = calls
    with pytest.raises(DataError, match=r"`--encoder missing.Encoder` cannot be"):
        call["index"].model.load_encoder()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{tmp}", "must be a folder that `mmpt index` has made"),
        ("{index} --videos {tmp}/none", "none: must be a folder, but is not"),
        ("{index} --port 70000", "--port"),
        ("{index} --device toaster", "--device toaster"),
        ("{index} --host 300.1.1.1", "`--host` must be an address or a name of this"),
        ("{index} --host 203.0.113.7", "but is '203.0.113.7'"),
        ("{index} --host a..b", "Give 127.0.0.1 for this machine only"),
    ],
)
def test_mistakes_are_reported(built, tmp_path, calls, capsys, arguments, message):
    assert app.main(arguments.format(index=built, tmp=tmp_path).split()) == 2
    assert message in capsys.readouterr().err
    assert calls == []


def test_a_missing_gradio_gives_one_error(built, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "mmpt.app.page", raising=False)
    assert app.main([str(built)]) == 2
    error = capsys.readouterr().err
    assert "gradio is not installed. Install it with: pip install 'mmpt[app]'" in error
