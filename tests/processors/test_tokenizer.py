import json
from pathlib import Path

import huggingface_hub
import pytest

from mmpt.errors import DataError
from mmpt.processors.tokenizer import SpecialTokens, load_tokenizer, special_tokens
from tests.support.hub_server import running_hub, use_hub
from tests.support.paths import GOLDEN
from tests.support.tiny_bert import tiny_bert


@pytest.mark.parametrize("use_fast", [True, False])
def test_a_local_folder_gives_the_recorded_ids(tmp_path, use_fast):
    folder = tiny_bert(tmp_path)
    tokenizer = load_tokenizer(folder, use_fast)
    recorded = json.loads((GOLDEN / "pretokenized.json").read_text())
    raw = json.loads((GOLDEN / "dedup.json").read_text())["raw"]
    for name, ids in recorded[f"token_ids_use_fast_{use_fast}"].items():
        texts = [
            text[:96] if isinstance(text, str) else "" for text in raw[name]["text"]
        ]
        assert tokenizer(texts, add_special_tokens=False)["input_ids"] == ids
    assert special_tokens(folder, use_fast) == SpecialTokens(
        101, 102, 0, vocab_size=383
    )
    assert load_tokenizer(folder, use_fast) is tokenizer


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vocab.txt", "must hold vocab.txt, but does not"),
        ("config.json", "no such file"),
    ],
)
def test_an_incomplete_folder_is_reported(tmp_path, name, message):
    folder = tiny_bert(tmp_path)
    (Path(folder) / name).unlink()
    with pytest.raises(DataError, match=f"{folder}.*{message}"):
        load_tokenizer(folder)


def test_the_error_for_an_unreachable_hub_has_a_remedy(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    message = r"`no-such/bert`.*\(.*refused.*\).*name a folder"
    with pytest.raises(DataError, match=message):
        load_tokenizer("no-such/bert")


def test_a_path_without_a_folder_is_an_error_without_the_hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"`/no/bert`.*cannot be a name of the hub"):
        load_tokenizer("/no/bert")


def test_a_name_unknown_to_the_hub_is_an_error(tmp_path, monkeypatch):
    message = r"`no-such/bert`.*did not return it \(.*no-such/bert.*Check the name"
    with running_hub() as hub:
        use_hub(hub, tmp_path, monkeypatch)
        with pytest.raises(DataError, match=message):
            load_tokenizer("no-such/bert")


def test_the_local_cache_is_asked_before_the_hub(monkeypatch):
    from transformers import AutoTokenizer

    asked = []

    def answer(name, *, use_fast, local_files_only=False):
        asked.append(local_files_only)
        return "tokenizer"

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", answer)
    assert load_tokenizer("some/cached-bert") == "tokenizer"
    assert asked == [True]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "config.json",
            '": 383',
            '": 380',
            "`vocab_size` must be at least the 383 word pieces",
        ),
        ("config.json", '": 383', '": "383"', "`vocab_size` must be a whole .*'383'"),
        ("config.json", "}", "", "not valid JSON"),
        (
            "config.json",
            "1e-12",
            '"x"',
            "holds no tokenizer that can be read: .*'layer_norm_eps'",
        ),
        ("vocab.txt", "[CLS]", "zz", r"must hold .*\[CLS\]"),
        ("vocab.txt", "[SEP]", "zz", r"must hold .*\[SEP\]"),
        ("vocab.txt", "[PAD]", "zz", r"must hold .*\[PAD\]"),
        ("vocab.txt", "[UNK]", "zz", r"must hold .*\[UNK\]"),
    ],
)
def test_a_damaged_folder_is_an_error(tmp_path, file, old, new, message):
    path = Path(tiny_bert(tmp_path)) / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message) as caught:
        load_tokenizer(str(tmp_path))
    named = tmp_path if "no tokenizer" in message else path
    assert str(caught.value).startswith(f"{named}: ")
