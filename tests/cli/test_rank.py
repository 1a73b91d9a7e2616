"""The place of a process: its flags, its share of the machine, and the start after a failure."""

import os
import socket

import psutil
import pytest
import torch

from mmpt.cli import rank
from mmpt.cli.rank import (
    Place,
    continued,
    interface_towards,
    main,
    rank_flags,
    set_environment,
)

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


def test_the_place_is_that_of_torchruns_variables(environment):
    assert Place.from_environment() == Place(0, 1, 0, 1)
    for name, value in zip(VARIABLES, "3412", strict=True):
        environment.setenv(name, value)
    assert Place.from_environment() == Place(3, 4, 1, 2)
    assert Place.from_environment().has_other_nodes
    environment.delenv("LOCAL_WORLD_SIZE")  # set by hand, without a launcher
    assert Place.from_environment() == Place(3, 4, 1, 4)


def test_flags_of_a_process():
    assert rank_flags(Place(), on_cpu=True) == ["--distributed-world-size", "1"]
    flags = (
        "--distributed-init-method env:// --distributed-no-spawn --distributed-rank 3"
    )
    flags += " --distributed-world-size 4"
    place = Place(3, 4, 1, 2)
    assert rank_flags(place, on_cpu=True) == flags.split()
    assert rank_flags(place, on_cpu=False) == [*flags.split(), "--device-id", "1"]


@pytest.mark.parametrize(
    ("place", "on_cpu", "set_before", "threads"),
    [
        (Place(), True, {}, None),
        (Place(0, 3, 0, 3), False, {}, None),
        (Place(0, 3, 0, 3), True, {}, "2"),
        (Place(0, 3, 0, 3), True, {"OMP_NUM_THREADS": "5"}, "5"),
    ],
)
def test_processes_on_the_cpu_share_the_cores(
    environment, place, on_cpu, set_before, threads
):
    environment.setattr(os, "cpu_count", lambda: 12)
    six = set(range(6))
    environment.setattr(os, "sched_getaffinity", lambda _: six, raising=False)
    environment.setenv("MASTER_ADDR", "127.0.0.1")
    for name, value in set_before.items():
        environment.setenv(name, value)
    set_environment(place, on_cpu=on_cpu)
    assert os.environ.get("OMP_NUM_THREADS") == threads
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == ("" if on_cpu else None)
    assert os.environ.get("GLOO_SOCKET_IFNAME") == (None if place.size == 1 else "lo")


def test_several_nodes_talk_through_the_interface_towards_node_0(environment):
    environment.setenv("MASTER_ADDR", "somewhere")
    environment.setattr(rank, "interface_towards", {"somewhere": "eth7"}.get)
    set_environment(Place(1, 4, 1, 2), on_cpu=True)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
    environment.setenv("GLOO_SOCKET_IFNAME", "mine")
    set_environment(Place(1, 4, 1, 2), on_cpu=True)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "mine"


def test_the_interface_of_an_address():
    assert interface_towards("127.0.0.1") is None  # other machines do not reach it
    assert interface_towards("nowhere.invalid") is None
    own = [
        (name, each.address)
        for name, addresses in psutil.net_if_addrs().items()
        for each in addresses
        if each.family == socket.AF_INET and name != "lo"
    ]
    for name, address in own[:1]:
        assert interface_towards(address) == name


def test_a_start_after_a_failure_continues(tmp_path):
    start = [
        "fairseq-train",
        "a.yaml",
        "--restore-file",
        "start.pt",
        "--reset-optimizer",
        "--cpu",
    ]
    start += ["--save-dir", str(tmp_path), "--lr", "1"]
    assert continued(start) == start
    (tmp_path / "checkpoint_last.pt").touch()
    kept = [
        "fairseq-train",
        "a.yaml",
        "--cpu",
        "--save-dir",
        str(tmp_path),
        "--lr",
        "1",
    ]
    assert continued(start) == kept


def test_a_mistake_is_reported_once_on_each_machine(environment, capsys):
    for name, value in zip(VARIABLES, "1212", strict=True):
        environment.setenv(name, value)
    environment.setattr(rank, "QUIET_S", 0)
    assert main(["nowhere.yaml"]) == 2
    assert capsys.readouterr().err == ""
    environment.setenv("LOCAL_RANK", "0")
    assert main(["nowhere.yaml"]) == 2
    assert "nowhere.yaml: 1 mistake" in capsys.readouterr().err


def test_an_evaluation_needs_no_torchrun(capsys):
    yaml = "projects/retri/norton/test_how2_demo_zs.yaml"
    assert main([yaml]) == 2
    assert f"run `mmpt train {yaml}`" in capsys.readouterr().err
