"""The agreement of ranks, through a store in a file."""

import threading

import pytest
from torch.distributed import FileStore

from mmpt.cli import agreement
from mmpt.cli.agreement import agree, config_fingerprint
from mmpt.config import load_config
from mmpt.errors import LaunchError
from tests.support.jobs import VIDEOCLIP


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Lets ranks agree, each in a thread, and returns their answers or errors."""
    monkeypatch.setattr(agreement, "SHARED_S", 0)
    monkeypatch.setattr(agreement.socket, "gethostname", lambda: "nodeA")

    def run(commands, settings):
        answers = [None] * len(commands)

        def work(rank):
            store = FileStore(str(tmp_path / "store"), len(commands))
            try:
                answers[rank] = agree(
                    store, rank, len(commands), commands[rank], settings[rank]
                )
            except LaunchError as err:
                answers[rank] = str(err)

        threads = [
            threading.Thread(target=work, args=(rank,)) for rank in range(len(commands))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    return run


def test_all_ranks_get_the_command_of_rank_0(ask, tmp_path):
    (tmp_path / "config.yaml").touch()
    command = ["fairseq-train", "a.yaml", "--save-dir", str(tmp_path)]
    assert ask([command, [], ["other"]], ["same"] * 3) == [command] * 3


def test_every_rank_names_those_that_differ(ask, tmp_path):
    command = ["fairseq-train", "a.yaml", "--save-dir", str(tmp_path)]
    answers = ask([command] * 3, ["same", "other", "same"])
    assert len(set(answers)) == 1
    header, *lines = answers[0].splitlines()
    assert header.endswith(
        "must have the same code and settings as rank 0, but these differ:"
    )
    assert lines == [
        "  - settings: rank 1 on nodeA. Rank 0 is on nodeA. To fix it, start the same command "
        "with the same YAML."
    ]


def test_a_folder_that_is_not_shared_is_found(ask, tmp_path, monkeypatch):
    """Every thread sees another folder of the same name."""
    texts = iter(["seen by rank 0"] * 2 + ["", "seen by rank 0"])
    first = threading.Lock()

    def saved(_command):
        with first:
            return next(texts)

    monkeypatch.setattr(agreement, "_saved_config", saved)
    command = ["fairseq-train", "a.yaml", "--save-dir", "runs/x"]
    answers = ask([command] * 3, ["same"] * 3)
    assert answers[0].count("save_dir: rank ") == 1
    assert "on a file system that all nodes share" in answers[0]


def test_other_code_gives_another_fingerprint(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(agreement.mmpt, "__file__", str(tmp_path / "__init__.py"))
    before = agreement.code_fingerprint()
    assert agreement.code_fingerprint() == before
    (tmp_path / "a.py").write_text("x = 2\n")
    changed = agreement.code_fingerprint()
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({before, changed, agreement.code_fingerprint()}) == 3


def test_settings_have_the_same_fingerprint_wherever_the_file_is():
    config = load_config(VIDEOCLIP)
    fingerprint = config_fingerprint(config)
    assert (
        config_fingerprint(config.model_copy(update={"path": "elsewhere.yaml"}))
        == fingerprint
    )
    assert config_fingerprint(load_config(VIDEOCLIP, ["infer_scale=3"])) != fingerprint
