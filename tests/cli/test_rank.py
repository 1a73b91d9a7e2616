"""The process of a process: its flags, its share of the machine, and the start after a failure."""

import os
import socket
import threading

import psutil
import pytest
import torch
from torch.distributed import FileStore

from mmpt.cli import rank
from mmpt.cli.rank import (
    ProcessRank,
    agree,
    interface_towards,
    main,
    rank_flags,
    set_environment,
)
from mmpt.errors import LaunchError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The environment and the threads of torch, restored after a test."""
    threads = torch.get_num_threads()
    changed = (
        "OMP_NUM_THREADS",
        "GLOO_SOCKET_IFNAME",
        "CUDA_VISIBLE_DEVICES",
        "MASTER_ADDR",
    )
    for name in (*VARIABLES, *changed):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    yield monkeypatch
    torch.set_num_threads(threads)


def test_the_place_is_read_from_torchruns_variables(environment):
    assert ProcessRank.from_environment() == ProcessRank(0, 1, 0, 1)
    for name, value in zip(VARIABLES, "3412", strict=True):
        environment.setenv(name, value)
    assert ProcessRank.from_environment() == ProcessRank(3, 4, 1, 2)
    assert ProcessRank.from_environment().has_other_nodes
    environment.delenv("LOCAL_WORLD_SIZE")  # set by hand, without a launcher
    assert ProcessRank.from_environment() == ProcessRank(3, 4, 1, 4)
    environment.delenv("LOCAL_RANK")
    assert ProcessRank.from_environment() == ProcessRank(3, 4, 3, 4)


def test_flags_of_a_process():
    assert rank_flags(ProcessRank(), on_cpu=True) == ["--distributed-world-size", "1"]
    flags = (
        "--distributed-init-method env:// --distributed-no-spawn --distributed-rank 3"
    )
    flags += " --distributed-world-size 4"
    process = ProcessRank(3, 4, 1, 2)
    assert rank_flags(process, on_cpu=True) == flags.split()
    assert rank_flags(process, on_cpu=False) == [*flags.split(), "--device-id", "1"]


@pytest.mark.parametrize(
    ("process", "on_cpu", "set_before", "threads"),
    [
        (ProcessRank(), True, {}, None),
        (ProcessRank(0, 3, 0, 3), False, {}, None),
        (ProcessRank(0, 3, 0, 3), True, {}, "2"),
        (ProcessRank(0, 3, 0, 3), True, {"OMP_NUM_THREADS": "5"}, "5"),
    ],
)
def test_processes_on_the_cpu_share_the_cores(
    environment, process, on_cpu, set_before, threads
):
    environment.setattr(os, "cpu_count", lambda: 12)
    six = set(range(6))
    environment.setattr(os, "sched_getaffinity", lambda _: six, raising=False)
    environment.setenv("MASTER_ADDR", "127.0.0.1")
    for name, value in set_before.items():
        environment.setenv(name, value)
    set_environment(process, on_cpu=on_cpu)
    assert os.environ.get("OMP_NUM_THREADS") == threads
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == ("" if on_cpu else None)
    assert os.environ.get("GLOO_SOCKET_IFNAME") == (
        None if process.world_size == 1 else "lo"
    )


def test_nodes_communicate_over_the_interface_that_leads_to_node_0(environment):
    environment.setenv("MASTER_ADDR", "somewhere")
    environment.setattr(rank, "interface_towards", {"somewhere": "eth7"}.get)
    set_environment(ProcessRank(1, 4, 1, 2), on_cpu=True)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
    environment.setenv("GLOO_SOCKET_IFNAME", "mine")
    set_environment(ProcessRank(1, 4, 1, 2), on_cpu=True)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "mine"


def test_the_interface_that_leads_to_an_address():
    assert interface_towards("127.0.0.1") is None  # other machines cannot reach it
    assert interface_towards("nowhere.invalid") is None
    own = [
        (name, each.address)
        for name, addresses in psutil.net_if_addrs().items()
        for each in addresses
        if each.family == socket.AF_INET and name != "lo"
    ]
    for name, address in own[:1]:
        assert interface_towards(address) == name


def test_a_mistake_is_reported_once_on_each_machine(environment, capsys):
    for name, value in zip(VARIABLES, "1212", strict=True):
        environment.setenv(name, value)
    environment.setattr(rank, "EXIT_WAIT_S", 0)
    assert main(["nowhere.yaml"]) == 2
    assert capsys.readouterr().err == ""
    environment.setenv("LOCAL_RANK", "0")
    assert main(["nowhere.yaml"]) == 2
    assert "nowhere.yaml: 1 mistake" in capsys.readouterr().err


def test_an_evaluation_cannot_be_started_with_torchrun(capsys):
    yaml = "projects/retri/norton/test_how2_demo_zs.yaml"
    assert main([yaml]) == 2
    assert f"run `mmpt train {yaml}`" in capsys.readouterr().err


# ---- the agreement of ranks, through a store in a file


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Compares ranks, each in a thread, and returns their results or errors."""
    monkeypatch.setattr(rank.socket, "gethostname", lambda: "nodeA")

    def run(commands, settings):
        answers = [None] * len(commands)

        def work(number):
            store = FileStore(str(tmp_path / "store"), len(commands))
            try:
                answers[number] = agree(
                    store,
                    number,
                    len(commands),
                    commands[number],
                    settings[number],
                    file_sync_s=0,
                )
            except LaunchError as err:
                answers[number] = str(err)

        threads = [
            threading.Thread(target=work, args=(number,))
            for number in range(len(commands))
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


def test_every_rank_lists_the_ranks_that_differ(ask, tmp_path):
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


def test_an_unshared_folder_is_detected(ask, tmp_path, monkeypatch):
    """Every thread sees another folder of the same name."""
    texts = iter(["seen by rank 0"] * 2 + ["", "seen by rank 0"])
    first = threading.Lock()

    def saved(_command):
        with first:
            return next(texts)

    monkeypatch.setattr(rank, "_saved_config", saved)
    command = ["fairseq-train", "a.yaml", "--save-dir", "runs/x"]
    answers = ask([command] * 3, ["same"] * 3)
    assert answers[0].count("save_dir: rank ") == 1
    assert "on a file system that all nodes share" in answers[0]


def test_changed_code_has_another_fingerprint(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(rank.mmpt, "__file__", str(tmp_path / "__init__.py"))
    before = rank.code_fingerprint()
    assert rank.code_fingerprint() == before
    (tmp_path / "a.py").write_text("x = 2\n")
    changed = rank.code_fingerprint()
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({before, changed, rank.code_fingerprint()}) == 3
